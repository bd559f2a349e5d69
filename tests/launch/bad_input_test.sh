#!/usr/bin/env bash
# A table of bad inputs: each must end with its exit code and one line that says what, where and how to mend.
#
#   tests/launch/bad_input_test.sh PROGRAM CONFIG
set -euo pipefail
source "$(dirname "$0")/fixture.sh"

root=$(mktemp -d)
trap 'chmod -R u+rwX "${root}"; rm -rf "${root}"' EXIT
chmod 755 "${root}"
make_fixture "$1" "$2" "${root}/pristine"
shoestring train --config tiny.textproto --run-dir run --max-steps 6 > /dev/null 2>&1
shoestring data tokenizer-train --input corpus.jsonl --vocab-size 290 --output other.json > /dev/null
printf 'exec "$@" > /dev/full\n' > "${root}/full.sh"
printf "trap '' XFSZ\nulimit -f \"\$1\"\nshift\nexec \"\$@\"\n" > "${root}/limited.sh"
export program
# What a line that says how to mend has: a remedy after a semicolon, or what is wanted instead.
remedy='; .|must|neither|needs|at least|is below|[Ee]xpected'
failures=0
count=0

# bad CODE REGEX SPOIL WORDS...: SPOIL is run by bash in a fresh copy of the fixture, then the program with WORDS.
bad() {
  local code=$1 regex=$2 spoil=$3 got=0 lines
  shift 3
  count=$((count + 1))
  rm -rf "${root}/case"
  cp -r "${root}/pristine" "${root}/case"
  cd "${root}/case"
  bash -euc "${spoil:-true}" || { echo "case ${count}: '${spoil}' itself failed"; failures=$((failures + 1)); return; }
  timeout 60 ${wrapper:-} "${program}" "$@" > "${root}/out" 2> "${root}/err" || got=$?
  # Problems of a config come a line each; a training run that fails has a log before its last line.
  lines=1
  [[ "${code}" -eq 78 || "${1:-} ${wrapper:-}" == "train bash"* ]] || lines=$(wc -l < "${root}/err")
  if [[ "${code}" -ne 78 ]]; then
    tail -n 1 "${root}/err" > "${root}/last"
    mv "${root}/last" "${root}/err"
  fi
  if [[ "${got}" -ne "${code}" || "${lines}" -ne 1 ]] || ! grep -E "${regex}" "${root}/err" | grep -qE "${remedy}"; then
    failures=$((failures + 1))
    printf 'case %d: %s  [%s]\n  wanted %d and one line like %s\n  got %d and %d lines:\n' \
      "${count}" "$*" "${spoil}" "${code}" "${regex}" "${got}" "${lines}"
    sed 's/^/    /' "${root}/err" | head -n 5
  else
    printf '%3d  exit %d  %s\n' "${count}" "${code}" "$(grep -E -m 1 "${regex}" "${root}/err")"
  fi
  [[ -z "${absent:-}" || ! -e "${absent}" ]] || { failures=$((failures + 1)); echo "case ${count}: left ${absent} behind"; }
}

# flip FILE OFFSET: inverts one byte. cut_to FILE BYTES: keeps so many. hold FILE: locks it, as long as a slow program
# needs to meet it. For the SPOIL of a case.
flip() {
  local byte
  byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
  printf "\\x$(printf %02x $((byte ^ 255)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
cut_to() { truncate -s "$2" "$1"; }
hold() {
  flock "$1" sleep 20 > hold.txt 2>&1 &
  sleep 0.3
}
export -f flip cut_to hold

# Where there is a GPU, too, asking for one must fail here.
export SHOESTRING_CUDA_MODULE=absent.so

t=(train --config tiny.textproto --run-dir new)
shard=run/checkpoints/step_0000006/shard_00000.safetensors
manifest=run/checkpoints/step_0000006/manifest.pb

usage_cases() {
  bad 64 "no verb; see" ""
  bad 64 "unknown verb 'trian', did you mean 'train'" "" trian
  bad 64 "unknown verb 'data prepar', did you mean 'prepare'" "" data prepar
  bad 64 "'checkpoint' needs one of: list" "" checkpoint
  bad 64 "unknown verb 'polish'" "" polish
  bad 64 "unknown flag --confg, did you mean --config" "" train --confg tiny.textproto
  bad 64 "run-dir.*see 'shoestring train --help'" "" train --config tiny.textproto
  bad 64 "config.*see 'shoestring train --help'" "" train --run-dir new
  bad 64 "word without a flag.*'stray'" "" train stray
  bad 64 "max-steps.*see" "" "${t[@]}" --max-steps soon
  bad 64 "max-steps -3: is negative" "" "${t[@]}" --max-steps=-3
  bad 64 "exit-after soon: is no duration" "" "${t[@]}" --exit-after soon
  bad 64 "on-existing maybe: is neither" "" "${t[@]}" --on-existing maybe
  bad 64 "temperature is negative" "" generate --checkpoint run --prompt a --temperature=-1
  bad 64 "seed -1: is negative; say 0 or more" "" generate --checkpoint run --prompt a --seed -1
  bad 64 "keep 0: keep at least 1" "" checkpoint prune run --keep 0
  bad 64 "compares two files" "" config diff tiny.textproto
  bad 64 "unknown verb 'nonsense'" "" help nonsense
  bad 64 "the word DIR is required.*see 'shoestring checkpoint check --help'" "" checkpoint check
  bad 64 "the word PREFIX is required" "" data stat
  bad 64 "word FILE cannot be specified more than once" "" config import-hf a b
  bad 64 "top -1: is negative; 0" "" data stat data/train --top -1
  bad 64 "threads -1: is negative; 0" "" generate --checkpoint run --prompt a --threads -1
  bad 64 "threads -1: is negative; 0" "" ablate --numerics --checkpoint run --threads -1
  bad 64 "threads -1: is negative; 0" "" data prepare --config tiny.textproto --input corpus.jsonl --threads -1
  bad 64 "document-bytes -1: is negative; " "" \
    data tokenizer-train --input corpus.jsonl --vocab-size 300 --output new.json --document-bytes -1
  bad 64 "text-split bytes needs --document-bytes" "" \
    data prepare --config tiny.textproto --input corpus.jsonl --text-split bytes
  bad 64 "output corpus.jsonl: the input corpus.jsonl would be overwritten; " "" \
    data tokenizer-train --input corpus.jsonl --vocab-size 300 --output corpus.jsonl --overwrite
  bad 64 "the input ./corpus.jsonl would be overwritten; " "" \
    data tokenizer-train --input ./corpus.jsonl --vocab-size 300 --output data/../corpus.jsonl --overwrite
}

config_cases() {
  bad 78 "tiny.textproto:[0-9]+:[0-9]+: .*layrs.*layers" "sed -i 's/  layers: 2/  layrs: 2/' tiny.textproto" "${t[@]}"
  bad 78 "ModelConfig has no such field" "sed -i 's/  hidden: 32/  hidden: 32 colour: 1/' tiny.textproto" "${t[@]}"
  bad 78 "said twice" "sed -i 's/  hidden: 32/  hidden: 32 hidden: 32/' tiny.textproto" "${t[@]}"
  bad 78 "absent.textproto: .*No such file.*check the path" "" train --config absent.textproto --run-dir new
  bad 78 "data: is a directory; name a .textproto" "" train --config data --run-dir new
  bad 78 "pipe: .*is not a regular file.*check the path" "mkfifo pipe" "${t[@]}" --config pipe
  bad 78 "not UTF-8; save the file as UTF-8" "printf '\\xff' >> tiny.textproto" "${t[@]}"
  bad 78 "tiny.textproto:[0-9]+" "cut_to tiny.textproto 300" "${t[@]}"
  bad 78 "unknown value BF17" "sed -i 's/mode: BF16/mode: BF17/' tiny.textproto" "${t[@]}"
  bad 78 "model.hidden" "" "${t[@]}" --set model.hidden=0
  bad 78 "model.layers" "" "${t[@]}" --set model.layers=-1
  bad 78 "qk_rope_head_dim" "" "${t[@]}" --set model.attention.qk_rope_head_dim=7
  bad 78 "groups" "" "${t[@]}" --set model.moe.groups=3
  bad 78 "active_experts" "" "${t[@]}" --set model.moe.active_experts=9
  bad 78 "batch" "" "${t[@]}" --set train.phase[0].batch.sequences=5
  bad 78 "model.hiden.*hidden" "" "${t[@]}" --set model.hiden=64
  bad 78 "train.phase\[7\]|phase" "" "${t[@]}" --set train.phase[7].steps=1
  bad 78 "model.hidden" "" "${t[@]}" --set model.hidden=wide
  bad 78 "must be set|must be said|not set|vocab_size" "sed -i '/vocab_size/d' tiny.textproto" "${t[@]}"
  bad 78 "precision.fp8.activation_format: is not set" "" "${t[@]}" --set precision.mode=FP8 --set precision.fp8={}
  bad 78 "layout.device: CUDA: absent.so: the CUDA module cannot be read; name another" "" "${t[@]}" --set layout.device=CUDA
  bad 78 "layout.device: CUDA: absent.so" "" "${t[@]}" --set layout.device=CUDA --set layout.data_ranks=2
  bad 78 "parameters would move to other ranks" "" "${t[@]}" --set 'train.phase[1].layout={ data_ranks: 2 }'
  bad 78 "data.packing: BEST_FIT fits.*; say CONCATENATE" "" "${t[@]}" --set data.packing=BEST_FIT
  bad 78 "beta1" "" "${t[@]}" --set train.adamw.beta1=1.5
  bad 78 "checkpoint.directory: is empty; give a path" "" "${t[@]}" --set 'checkpoint.directory=""'
  # Known only when the ranks measure it, which is after the directory was taken.
  bad 74 "memory" "" "${t[@]}" --set train.phase[0].micro_batch=1000000 --set train.phase[0].batch.sequences=4000000
  bad 74 "memory" "" "${t[@]}" --set layout.data_ranks=2 --set train.phase[0].micro_batch=1000000 \
    --set train.phase[0].batch.sequences=4000000
}

data_cases() {
  bad 74 "data/tokenizer.json: No such file.*; set data.tokenizer, or" "rm data/tokenizer.json" "${t[@]}"
  bad 74 "data/train.*No such file.*; set data.source.prefix, or" "rm data/train.bin" "${t[@]}"
  bad 74 "data/train.*No such file.*; set data.source.prefix, or" "rm data/train.idx" "${t[@]}"
  bad 65 "data/train" "rm data/train.meta.json" "${t[@]}"
  bad 65 "data/train" "cut_to data/train.bin 100" "${t[@]}"
  bad 65 "data/train" "cut_to data/train.idx 40" "${t[@]}"
  bad 65 "data/train" "cut_to data/train.meta.json 90" "${t[@]}"
  bad 65 "data/train" "flip data/train.idx 12" "${t[@]}"
  bad 65 "data/train" "flip data/train.idx 60" "${t[@]}"
  bad 65 "data/train" "flip data/train.meta.json 60" "${t[@]}"
  bad 65 "data/train.bin.*checksum|checksum.*data/train|block" "flip data/train.bin 50" data stat data/train
  bad 65 "data/train" "cp data/validation.idx data/train.idx" "${t[@]}"
  bad 65 "tokenizer" "cp other.json data/tokenizer.json" "${t[@]}"
  bad 65 "tokenizer.json.*300 tokens.*vocab_size" "" "${t[@]}" --set model.vocab_size=299
  bad 65 "eos_id" "" "${t[@]}" --set model.eos_id=5
  bad 65 "tokenizer.json" "cut_to data/tokenizer.json 200" "${t[@]}"
  bad 65 "tokenizer.json: has 2199023255552 bytes.*; check" "truncate -s 2T data/tokenizer.json" "${t[@]}"
  bad 65 "corpus.jsonl:1: the tokenizer's pattern.*exhausted.*; simplify" \
    "sed -i '0,/\"Regex\": \"[^\"]*\"/s//\"Regex\": \"(?:a|aa|a?b)+[cd]\"/' data/tokenizer.json
     printf '{\"text\": \"%05000d\"}\n' 0 | tr 0 a > corpus.jsonl" \
    data prepare --config tiny.textproto --input corpus.jsonl --train data2
  bad 65 "packing|BEST_FIT" "" "${t[@]}" --set data.packing=BEST_FIT --set train.phase[0].sequence_length=16
  bad 65 "fill-in-the-middle rate" "" "${t[@]}" --set data.fim_rate=0.5
  bad 65 "corpus.jsonl:201: invalid UTF-8.*UTF-8" "printf '{\"text\": \"\\xff\"}\n' >> corpus.jsonl" \
    data tokenizer-train --input corpus.jsonl --vocab-size 300 --output new.json
  bad 65 "corpus.jsonl:201: .*JSON" "echo '{\"text\": ' >> corpus.jsonl" \
    data tokenizer-train --input corpus.jsonl --vocab-size 300 --output new.json
  bad 65 "corpus.jsonl:201: .*text" "echo '{\"words\": \"a\"}' >> corpus.jsonl" \
    data tokenizer-train --input corpus.jsonl --vocab-size 300 --output new.json
  bad 65 "must end in .txt or .jsonl.*rename" "cp corpus.jsonl corpus.csv" \
    data tokenizer-train --input corpus.csv --vocab-size 300 --output new.json
  bad 65 "corpus.jsonl.gz" "gzip corpus.jsonl; cut_to corpus.jsonl.gz 500" \
    data tokenizer-train --input corpus.jsonl.gz --vocab-size 300 --output new.json
  bad 65 "vocab_size|vocabulary|--vocab" "" data tokenizer-train --input corpus.jsonl --vocab-size 10 --output new.json
  bad 65 "can be reached|pairs|reach" "" data tokenizer-train --input corpus.jsonl --vocab-size 90000 --output new.json
  bad 74 "other.json: exists.*--overwrite" "" data tokenizer-train --input corpus.jsonl --vocab-size 290 --output other.json
  bad 74 "pipe.jsonl: is not a regular file" "mkfifo pipe.jsonl" \
    data tokenizer-train --input pipe.jsonl --vocab-size 300 --output new.json
  bad 74 "absent.jsonl: No such file" "" data tokenizer-train --input absent.jsonl --vocab-size 300 --output new.json
  bad 64 "validation-fraction needs --seed" "" \
    data tokenizer-train --input corpus.jsonl --vocab-size 300 --output new.json --validation-fraction 0.2
  bad 64 "validation share" "" \
    data tokenizer-train --input corpus.jsonl --vocab-size 300 --output new.json --validation-fraction 1 --seed 1
  bad 65 "train" "" data prepare --config tiny.textproto --input corpus.jsonl --validation-fraction 0.2
  bad 64 "validation share" "" data prepare --config tiny.textproto --input corpus.jsonl --validation-fraction 2
  bad 65 "data/validation: was held out of ./corpus.jsonl.*; say --validation-fraction" "" \
    data prepare --config tiny.textproto --input ./corpus.jsonl --overwrite
  bad 65 "notes: is no regular file; name another" "mkfifo notes" \
    data prepare --config tiny.textproto --input corpus.jsonl --train data2 --train-text notes --overwrite
  bad 65 "notes: is no regular file; name another" "mkdir notes" \
    data prepare --config tiny.textproto --input corpus.jsonl --train data2 --train-text notes --overwrite
  bad 65 "rename notes.tmp to notes: a device, pipe or socket stands there; name another file" "mkfifo notes" \
    data tokenizer-train --input corpus.jsonl --vocab-size 300 --output notes --overwrite
  bad 65 "corpus.jsonl would be overwritten; " "" \
    data prepare --config tiny.textproto --input corpus.jsonl --train data2 --train-text ./corpus.jsonl
  bad 65 "two outputs have the name data2.bin; give" "" \
    data prepare --config tiny.textproto --input corpus.jsonl --train data2 --train-text data2.bin
  bad 65 "notes.txt: a file stands there .*--overwrite" "echo mine > notes.txt" \
    data prepare --config tiny.textproto --input corpus.jsonl --train data2 --train-text notes.txt
  bad 74 "data/train: in use by.*; wait" "hold data/train.lock" \
    data prepare --config tiny.textproto --input corpus.jsonl --validation-fraction 0.2 --overwrite
  bad 74 "data/both: in use by.*; wait" "hold data/both.lock" \
    data merge --input data/train data/train --output data/both
  bad 65 "big.jsonl:30001: .*data2.parts keeps what is done" \
    "for i in {1..300}; do head -n 100 corpus.jsonl; done > big.jsonl; echo '{' >> big.jsonl" \
    data prepare --config tiny.textproto --input big.jsonl --train data2 --threads 1
  bad 74 "data/train.bin.idx: No such file.*; a shard goes by its prefix, data/train$" "" data stat data/train.bin
  bad 65 "data merge --tokenizer" "rm data/train.meta.json" data merge --input data/train --output data/ours
}

checkpoint_cases() {
  bad 74 "absent: holds no run.*check --run-dir" "" resume --run-dir absent
  bad 74 "run: holds a run already.*resume" "" train --config tiny.textproto --run-dir run
  bad 74 "no checkpoint; 'train'.*--on-existing resume" "rm -r run/checkpoints run/summary.json run/metrics.jsonl" \
    resume --run-dir run
  bad 65 "run/checkpoints: holds no checkpoint, but run says that one was saved; mount" "rm -r run/checkpoints" \
    resume --run-dir run
  bad 65 "run/checkpoints: holds no checkpoint, but run says that one was saved; mount" "rm -r run/checkpoints" \
    train --config tiny.textproto --run-dir run --on-existing resume
  bad 65 "elsewhere: holds no checkpoint, but run says that one was saved; mount" "rm run/summary.json" \
    train --config tiny.textproto --set 'checkpoint.directory="elsewhere"' --run-dir run --on-existing resume
  absent=new
  bad 74 "run/checkpoints: holds checkpoints already; remove" "" "${t[@]}" --set 'checkpoint.directory="run/checkpoints"'
  bad 74 "run/checkpoints: in use by.*; wait" "hold run/checkpoints/checkpoints.lock" "${t[@]}" \
    --set 'checkpoint.directory="run/checkpoints"' --on-existing resume
  bad 74 "run/checkpoints: holds checkpoints already; remove" "" "${t[@]}" \
    --set 'checkpoint.directory="run/checkpoints"' --on-existing resume
  bad 74 "corpus.jsonl: File exists; name another" "" "${t[@]}" --set 'checkpoint.directory="corpus.jsonl"'
  absent=
  bad 74 "holds a run already.*--on-existing resume does too" "rm -r run/checkpoints" train --config tiny.textproto --run-dir run
  bad 74 "data: holds no run; name a run" "" checkpoint prune data --keep 1
  bad 65 "shard_00000.safetensors" "flip ${shard} 20000" resume --run-dir run
  bad 65 "shard_00000.safetensors" "flip ${shard} 20" resume --run-dir run
  bad 65 "shard_00000.safetensors" "cut_to ${shard} 20000" resume --run-dir run
  bad 65 "shard_00000.safetensors" "rm ${shard}" resume --run-dir run
  bad 65 "manifest" "flip ${manifest} 100" resume --run-dir run
  bad 65 "manifest" "cut_to ${manifest} 50" resume --run-dir run
  bad 65 "manifest" "rm ${manifest}" resume --run-dir run
  bad 65 "LATEST" "echo nonsense > run/checkpoints/LATEST" resume --run-dir run
  bad 65 "step_0000009" "echo step_0000009 > run/checkpoints/LATEST" resume --run-dir run
  bad 78 "train.adamw.beta1.*0.9 -> 0.8" "" resume --run-dir run --set train.adamw.beta1=0.8
  bad 78 "train.seed" "" resume --run-dir run --set train.seed=2
  bad 78 "config.textproto:[0-9]+" "cut_to run/config.textproto 700" resume --run-dir run
  bad 65 "shard_00000.safetensors" "flip ${shard} 20000" checkpoint check run
  bad 65 "shard_00000.safetensors" "flip ${shard} 20000" generate --checkpoint run --prompt the
  bad 65 "not the tokenizer.*--tokenizer" "" generate --checkpoint run --prompt the --tokenizer other.json
  bad 74 "absent" "" generate --checkpoint absent --prompt the
  bad 65 "no moving average.*leave --ema out" \
    "\"\${program}\" train --config tiny.textproto --set train.ema= --run-dir plain --max-steps 1 > log 2>&1" \
    generate --checkpoint plain --prompt the --ema
  bad 65 "tiny.textproto: parse error at line 1,.*; name a model's config.json" "" config import-hf tiny.textproto
  bad 65 "c.json: the key .a. appears twice; name" "echo '{\"a\": 1, \"a\": 1}' > c.json" config import-hf c.json
  bad 65 "c.json: has 2199023255552 bytes.*; check" "truncate -s 2T c.json" config import-hf c.json
  bad 65 "prompt, which must be UTF-8: invalid" "" generate --checkpoint run --prompt $'\xff'
}

disk_cases() {
  # A limit on the size of files stands for the full disk.
  wrapper="bash ${root}/limited.sh 4"  # KiB
  bad 74 "new.json.*File too large" "" data tokenizer-train --input corpus.jsonl --vocab-size 300 --output new.json
  bad 74 "data2.*File too large" "" data prepare --config tiny.textproto --input corpus.jsonl --train data2
  wrapper="bash ${root}/limited.sh 64"
  bad 74 "step_.*File too large" "" "${t[@]}"
  bad 74 "step_.*File too large" "" "${t[@]}" --set train.lanes=2 --set "train.phase[0].micro_batch=1" --set layout.data_ranks=2
  wrapper="bash ${root}/full.sh"
  bad 74 "standard output: what was printed is not whole; make room" "" config docs
  bad 74 "standard output" "" schedule --kind gpipe --stages 2 --microbatches 4 --json
  bad 74 "standard output" "" checkpoint check run
  bad 74 "standard output" "" --help
  wrapper=
  bad 74 "new" "echo > new" "${t[@]}"
  bad 74 "run: in use by.*wait" "hold run/lock" resume --run-dir run
}

# Permissions do not bind root: there the program runs as nobody.
permission_cases() {
  wrapper=
  [[ "$(id -u)" -ne 0 ]] || wrapper="setpriv --reuid 65534 --clear-groups --"
  bad 74 "data/train.bin: Permission denied" "chmod -R a+rwX .; chmod 000 data/train.bin" "${t[@]}"
  bad 74 "new.*Permission denied" "chmod a-w ." "${t[@]}"
  absent=new
  bad 74 "kept.*Permission denied" "chmod -R a+rwX .; mkdir -m 555 kept" "${t[@]}" --set 'checkpoint.directory="kept"'
  absent=
  bad 78 "tiny.textproto.*Permission denied" "chmod 000 tiny.textproto" "${t[@]}"
  wrapper=
}

usage_cases
absent=new
config_cases
data_cases
absent=
checkpoint_cases
disk_cases
permission_cases
echo "${count} cases, ${failures} failed"
[[ "${failures}" -eq 0 ]]
