#!/usr/bin/env bash
# A model leaves a run as a Hugging Face directory and begins another run from it, in each number format; and what is
# said when that cannot be.
#
#   tests/launch/hf_test.sh PROGRAM CONFIG
set -euo pipefail
source "$(dirname "$0")/fixture.sh"
recipes=$(realpath "$(dirname "$0")/../../configs/recipes")
in_fixture "$1" "$2"

# refused CODE LINES REGEX WORDS...: the program must end with CODE and as many lines of errors, one like REGEX.
refused() {
  local code=$1 lines=$2 regex=$3 got=0
  shift 3
  "${program}" "$@" > out 2> err || got=$?
  [[ "${got}" -eq "${code}" ]] || fail "'$*' ended with ${got}, not ${code}: $(head -n 3 err)"
  [[ "$(wc -l < err)" -eq "${lines}" ]] || fail "'$*' said $(wc -l < err) lines, not ${lines}: $(cat err)"
  grep -qE "${regex}" err || fail "'$*' said nothing like '${regex}': $(cat err)"
}
import() { shoestring checkpoint import-hf --from "$1" --config tiny.textproto --run-dir "$2" "${@:3}"; }
says() { shoestring generate --checkpoint "$1" --prompt "the cat" --tokens 12 --temperature 0 "${@:2}"; }

shoestring train --config tiny.textproto --run-dir first --max-steps 6 > /dev/null 2>&1
for dtype in f32 bf16 fp8; do
  shoestring checkpoint export-hf first --output "hf_${dtype}" --dtype "${dtype}" --max-shard-size 30KB > /dev/null
  for file in config.json generation_config.json model.safetensors.index.json tokenizer.json tokenizer_config.json; do
    [[ -s "hf_${dtype}/${file}" ]] || fail "hf_${dtype} lacks ${file}"
  done
  cmp hf_${dtype}/tokenizer.json data/tokenizer.json
  import "hf_${dtype}" "run_${dtype}" > /dev/null
  shoestring checkpoint check "run_${dtype}" > /dev/null
  [[ "$(cat "run_${dtype}/checkpoints/LATEST")" == step_0000000 ]] || fail "run_${dtype} does not begin at step 0"
  says "run_${dtype}" > "said_${dtype}"
  says "run_${dtype}" --ema > "said_ema"
  cmp "said_${dtype}" said_ema
  shoestring resume --run-dir "run_${dtype}" --max-steps 3 > /dev/null 2>&1
  [[ "$(cat "run_${dtype}/checkpoints/LATEST")" == step_0000003 ]] || fail "run_${dtype} did not go on to step 3"
done
# FP32 loses nothing; BF16 does not when it goes through a second time.
says first > said_first
cmp said_f32 said_first
shoestring checkpoint export-hf run_f32/checkpoints/step_0000000 --output again_f32 --dtype f32 --max-shard-size 30KB > /dev/null
diff -r hf_f32 again_f32
shoestring checkpoint export-hf run_bf16/checkpoints/step_0000000 --output again_bf16 --max-shard-size 30KB > /dev/null
diff -r hf_bf16 again_bf16
# The same import gives the same run.
import hf_f32 twin > /dev/null
shoestring resume --run-dir twin --max-steps 3 > /dev/null 2>&1
[[ "$(digest_of twin)" == "$(digest_of run_f32)" ]] || fail "two imports of one directory trained apart"

# A config's model is that of its last phase, context extension included.
shoestring config export-hf --config "${recipes}/deepseek_v3_671b.textproto" > v3.json
grep -q '"max_position_embeddings": 163840,' v3.json || fail "V3 has $(grep max_position v3.json)"
grep -q '"factor": 40.0,' v3.json || fail "V3 is exported without YaRN"
shoestring config export-hf --config tiny.textproto > tiny.json
diff <(grep -v torch_dtype tiny.json) <(grep -v torch_dtype hf_f32/config.json)

into=(checkpoint import-hf --config tiny.textproto --run-dir new)
refused 64 1 "none of f32, bf16 and fp8" checkpoint export-hf first --output x --dtype f16
refused 64 1 "max-shard-size 5TB: is no size" checkpoint export-hf first --output x --max-shard-size 5TB
refused 64 1 "needs --dtype fp8" checkpoint export-hf first --output x --power-of-two-scales
refused 64 1 "from.*required" "${into[@]}"
refused 74 1 "hf_f32: exists already" checkpoint export-hf first --output hf_f32
shoestring checkpoint export-hf first/ --output slash/ > /dev/null
[[ -s slash/config.json && -z "$(ls -d slash/.tmp* 2> /dev/null)" ]] || fail "an output with a slash at its end"
refused 74 1 "holds a run already" checkpoint import-hf --from hf_f32 --config tiny.textproto --run-dir first
refused 74 1 "nowhere/config.json" "${into[@]}" --from nowhere
refused 78 1 "^--set model.layers: model.layers: is 3, but hf_f32/config.json means 2; say model.layers=2$" \
  "${into[@]}" --from hf_f32 --set model.layers=3
sed 's/layers: 2$/layers: 3/' tiny.textproto > three.textproto
refused 78 1 "^three.textproto:[0-9]+:[0-9]+: model.layers: is 3, but" \
  checkpoint import-hf --config three.textproto --run-dir new --from hf_f32
refused 78 2 "model.heads: is 4, but" "${into[@]}" --from hf_f32 --set model.heads=4 --set model.norm_eps=1e-5
shoestring data tokenizer-train --input corpus.jsonl --vocab-size 290 --output other.json > /dev/null
refused 65 1 "other.json: is not the tokenizer" checkpoint export-hf first --output x --tokenizer other.json

# spoil NAME COMMAND...: a copy of hf_f32 in which the command is run.
spoil() {
  rm -rf "$1"
  cp -r hf_f32 "$1"
  (cd "$1" && bash -euc "$2")
}
shard=$(grep -oE 'model-00001-of-[0-9]+.safetensors' hf_f32/model.safetensors.index.json | head -n 1)
spoil other_tokenizer "cp ../other.json tokenizer.json"
refused 65 1 "is another tokenizer than other_tokenizer/tokenizer.json" "${into[@]}" --from other_tokenizer
spoil short "truncate -s -1 ${shard}"
refused 65 1 "short/${shard}" "${into[@]}" --from short
spoil leaving "sed -i 's|${shard}|../${shard}|' model.safetensors.index.json"
refused 65 1 "weight_map.* is no file name" "${into[@]}" --from leaving
spoil entry "sed -i '/\"model.layers.0.input_layernorm.weight\"/d' model.safetensors.index.json"
refused 65 1 "holds model.layers.0.input_layernorm.weight, which model.safetensors.index.json does not say" "${into[@]}" --from entry
spoil gone "rm ${shard}"
refused 74 1 "gone/${shard}" "${into[@]}" --from gone
spoil half "sed -i 's/\"F32\"/\"F16\"/' ${shard}"
refused 65 1 "half/${shard}" "${into[@]}" --from half
spoil llama "sed -i -e 's/\"hidden_act\": \"silu\"/\"hidden_act\": \"gelu\"/' -e 's/\"hidden_size\": 32/\"hidden_size\": -32/' config.json"
refused 65 2 "^llama/config.json: hidden_size: is -32" "${into[@]}" --from llama
spoil nan "truncate -s -4 ${shard}; printf '\\377\\377\\377\\377' >> ${shard}"
refused 65 1 "nan: .* holds a number that is not finite" "${into[@]}" --from nan
refused 64 1 "is the directory of the model" checkpoint import-hf --config tiny.textproto --from hf_f32 --run-dir ./hf_f32/
[[ ! -e new ]] || fail "a refused import left something behind: $(find new)"

# Without shards: all but resume.
mv data/train.bin train.bin
refused 74 1 "data/train" "${into[@]}" --from hf_bf16
import hf_bf16 unfed --without-data > /dev/null
says unfed > said_unfed
cmp said_unfed said_bf16
mv train.bin data/train.bin
refused 78 1 "the run cannot go on from this checkpoint.*data:" resume --run-dir unfed
# Without MTP.
shoestring checkpoint export-hf first --output hf_plain --skip-mtp > /dev/null
refused 78 1 "model.mtp_depth: is 1, but hf_plain/config.json means 0" "${into[@]}" --from hf_plain
sed -e '/mtp_weight/d' -e 's/mtp_depth: 1/mtp_depth: 0/' tiny.textproto > plain.textproto
refused 78 1 "say model.mtp_depth=1, or 0 with --skip-mtp" \
  checkpoint import-hf --config plain.textproto --run-dir new --from hf_bf16
shoestring checkpoint import-hf --config plain.textproto --run-dir plain --from hf_plain > /dev/null
shoestring checkpoint import-hf --config plain.textproto --run-dir left --from hf_bf16 --skip-mtp > /dev/null
[[ "$(digest_of left)" == "$(digest_of plain)" ]] || fail "--skip-mtp leaves other weights than an export without MTP"
echo "hf_test: good"
