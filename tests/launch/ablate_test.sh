#!/usr/bin/env bash
# The numerics probe from the command line: of a checkpoint, of an imported one and of initial weights; and what is
# said when that cannot be.
#
#   tests/launch/ablate_test.sh PROGRAM CONFIG
set -euo pipefail
source "$(dirname "$0")/fixture.sh"
in_fixture "$1" "$2"
probe() { shoestring ablate --numerics "$@"; }

# refused CODE LINES REGEX WORDS...: the program must end with CODE and as many lines of errors, one like REGEX.
refused() {
  local code=$1 lines=$2 regex=$3 got=0
  shift 3
  "${program}" "$@" > out 2> err || got=$?
  [[ "${got}" -eq "${code}" ]] || fail "'$*' ended with ${got}, not ${code}: $(head -n 3 err)"
  [[ "$(wc -l < err)" -eq "${lines}" ]] || fail "'$*' said $(wc -l < err) lines, not ${lines}: $(cat err)"
  grep -qE -- "${regex}" err || fail "'$*' said nothing like '${regex}': $(cat err)"
}
# Column N of the line that a preset has in the first table of a file.
column() { awk -v preset="$1" -v n="$2" '$1 == preset && NF == 9 { print $n; exit }' "$3"; }

shoestring train --config tiny.textproto --run-dir first --max-steps 6 > /dev/null 2>&1
before=$(digest_of first)
probe --checkpoint first --json first.json --report first.html > first.txt
[[ "$(digest_of first)" == "${before}" ]] || fail "the checkpoint has changed"
head -n 1 first.txt | grep -q "^first/checkpoints/step_0000006, step 6; 2 sequences of 32 tokens, from sample 24 of phase 0$" ||
  fail "the first line: $(head -n 1 first.txt)"
for preset in bf16 fp8 fp8-pow2 fp8-e5m2 fp8-coarse fp8-hopper fp8-hopper-384 fp8-cache-bf16; do
  [[ -n "$(column "${preset}" 3 first.txt)" ]] || fail "${preset} has no line"
  grep -q ">${preset}<" first.html || fail "${preset} is not in the page"
done
grep -q "<svg" first.html || fail "the page has no picture"
if grep -q "<script" first.html; then fail "the page has a script"; fi
# Medians of activations and of gradients: more bits, less noise.
for n in 3 5; do
  awk -v a="$(column bf16 $n first.txt)" -v b="$(column fp8 $n first.txt)" 'BEGIN { exit !(a > b + 10) }' ||
    fail "BF16 is not better than FP8 in column $n"
done
awk -v a="$(column fp8 5 first.txt)" -v b="$(column fp8-e5m2 5 first.txt)" 'BEGIN { exit !(a > b) }' ||
  fail "gradients in E5M2 are not worse than in E4M3"
probe --checkpoint first/checkpoints/step_0000006 --threads 3 > again.txt
cmp first.txt again.txt

# Through a Hugging Face directory: the same weights, so the same numbers. The run begins anew, so the tokens are named.
shoestring checkpoint export-hf first --output hf --dtype f32 > /dev/null
shoestring checkpoint import-hf --from hf --config tiny.textproto --run-dir second > /dev/null
head -c 4000 corpus.jsonl > words.txt
for run in first second; do
  probe --checkpoint ${run} --text words.txt --sequences 3 --preset bf16 --preset fp8 --json ${run}.json > ${run}.txt
  sed -i 1d ${run}.txt
  grep -v '"checkpoint"\|"step"' ${run}.json > ${run}_numbers.json
done
cmp first.txt second.txt
cmp first_numbers.json second_numbers.json

# Initial weights are those of step 0; a run's own FP8 recipe is there without being named, and as `run`.
cat > fp8.textproto << 'END'
precision {
  mode: FP8
  fp8 {
    activation_format: E4M3 weight_format: E4M3 gradient_format: E5M2
    activation_tile { rows: 1 columns: 64 } weight_tile { rows: 64 columns: 64 }
    gradient_tile { rows: 1 columns: 64 } weight_gradient_tile { rows: 64 columns: 1 }
    promotion_interval: 64 accumulation: ACCUMULATE_FP32
    power_of_two_activation: false power_of_two_weight: false power_of_two_gradient: false
    power_of_two_attention_output: true power_of_two_dispatch: true power_of_two_dispatch_gradient: true
    cached_linear_input: E4M3 cached_attention_output: E5M6 cached_swiglu_input: E4M3
    dispatch_format: E4M3 dispatch_gradient_format: E4M3 combine_format: BF16
  }
}
END
shoestring train --config tiny.textproto --config fp8.textproto --run-dir third --max-steps 1 > /dev/null 2>&1
probe --config tiny.textproto --config fp8.textproto > initial.txt
[[ -n "$(column run 3 initial.txt)" ]] || fail "the run's own recipe has no line"
[[ "$(head -n 1 initial.txt)" == "initial weights, step 0; 2 sequences of 32 tokens, from sample 0 of phase 0" ]] ||
  fail "the first line: $(head -n 1 initial.txt)"
probe --config tiny.textproto --preset "mine:fp8.activation_tile.columns=64,fp8.gradient_tile.columns=64,\
fp8.weight_tile={ rows: 64 columns: 64 },fp8.weight_gradient_tile.rows=64,fp8.promotion_interval=64,\
fp8.gradient_format=E5M2" > mine.txt
for n in 2 3 4 5 6 7 8 9; do
  [[ "$(column run $n initial.txt)" == "$(column mine $n mine.txt)" ]] || fail "run and mine differ in column $n"
done
probe --checkpoint third --preset run > /dev/null
probe --checkpoint first --preset fp8 --own-routing > own.txt
grep -q "own routing: rows of experts are not compared" own.txt || fail "own routing is not said"
# A run that is over is looked at as its last phase begins.
shoestring train --config tiny.textproto --run-dir over > /dev/null 2>&1
probe --checkpoint over --preset bf16 > over.txt
head -n 1 over.txt | grep -q "step 20; 2 sequences of 16 tokens, from sample 0 of phase 1$" || fail "$(head -n 1 over.txt)"

refused 64 1 "'ablate' compares precisions with --numerics; .* later version" ablate --checkpoint first
refused 64 1 "needs one of --checkpoint and --config" ablate --numerics
refused 64 1 "needs one of --checkpoint and --config" ablate --numerics --checkpoint first --config tiny.textproto
refused 64 1 "--preset fp9: is no preset" ablate --numerics --checkpoint first --preset fp9
refused 64 1 "--preset fp8: is there twice" ablate --numerics --checkpoint first --preset fp8 --preset fp8
refused 64 1 "--preset mine: .*fp8.colour" ablate --numerics --checkpoint first --preset mine:fp8.colour=red
refused 64 1 "--sequences is negative" ablate --numerics --checkpoint first --sequences -1
refused 64 1 "take 65536 or fewer" ablate --numerics --checkpoint first --text words.txt --sequences 1000000000000
refused 78 1 "^--preset mine: precision.fp8.activation_tile.rows: tokens have scales of their own" \
  ablate --numerics --checkpoint first --preset mine:fp8.activation_tile.rows=2
refused 78 1 "^--set model.heads: model.heads: is 0" ablate --numerics --config tiny.textproto --set model.heads=0
refused 78 1 "^--set model.heads: model.heads: is 0" ablate --numerics --checkpoint first --set model.heads=0
refused 65 1 "model.layers.0" ablate --numerics --checkpoint first --set model.hidden=64
refused 74 1 "nowhere" ablate --numerics --checkpoint nowhere
refused 74 1 "nowhere" ablate --numerics --checkpoint first --text nowhere
refused 65 1 "words.txt: .*has [0-9]+ tokens, but [0-9]+ are wanted" \
  ablate --numerics --checkpoint first --text words.txt --sequences 1000
refused 74 1 "absent/a.json" ablate --numerics --checkpoint first --preset bf16 --json absent/a.json
shard=$(ls first/checkpoints/step_0000006/*.safetensors | head -n 1)
printf 'x' | dd of="${shard}" bs=1 seek=4000 conv=notrunc 2> /dev/null
refused 65 1 "$(basename "${shard}")" ablate --numerics --checkpoint first --preset bf16
echo "ablate_test: good"
