#!/usr/bin/env bash
# A tokenizer is learned from just those documents that end up in the training shard.
#
#   tests/launch/held_out_test.sh PROGRAM CONFIG
set -euo pipefail
source "$(dirname "$0")/fixture.sh"
in_fixture "$1" "$2"
learn() { shoestring data tokenizer-train --vocab-size 400 --output "$1" --input "${@:2}" > /dev/null; }

# Documents of one line, each with words of its own, in two files with empty ones between; the first word is its name.
awk 'BEGIN {
  for (d = 0; d < 600; ++d) {
    printf "{\"text\": \"d%d", d > ("part" d % 2 ".jsonl")
    for (w = 0; w < 8; ++w) printf " %c%c%c%c", 97 + d % 26, 97 + int(d / 26), 97 + w * 3, 97 + (d * w) % 26 > ("part" d % 2 ".jsonl")
    printf "\\n\"}\n%s", d % 50 ? "" : "{\"text\": \"\"}\n" > ("part" d % 2 ".jsonl")
  }
}'
shoestring data prepare --config tiny.textproto --input part0.jsonl part1.jsonl --validation-fraction 0.2 --overwrite \
  --train-text train.txt --validation-text validation.txt > /dev/null
held_out=$(wc -l < validation.txt)
[[ "${held_out}" -ge 60 && $((held_out + $(wc -l < train.txt))) -eq 600 ]] || fail "${held_out} documents of 600 were held out"

# What should come out: the same documents without those that preparation held out, and nothing asked for.
awk 'FNR == NR { out[$1] = 1; next } { name = $2; sub(/^"/, "", name) } !(name in out)' \
  validation.txt part0.jsonl part1.jsonl > training.jsonl
learn wanted.json training.jsonl
learn whole.json part0.jsonl part1.jsonl
learn got.json part0.jsonl part1.jsonl --validation-fraction 0.2 --seed 1
cmp -s wanted.json got.json || fail "the tokenizer is not the one of the training documents"
cmp -s wanted.json whole.json && fail "the held-out documents make no difference here: this test shows nothing"
learn other.json part0.jsonl part1.jsonl --validation-fraction 0.2 --seed 2
cmp -s wanted.json other.json && fail "another seed holds out the same documents"
echo "held_out_test: passed (${held_out} of 600 documents held out)"
