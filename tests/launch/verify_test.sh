#!/usr/bin/env bash
# The verb `verify`: layouts against one rank and against golden files; a spoiled golden; what is said of bad flags.
#
#   tests/launch/verify_test.sh PROGRAM CONFIG
set -euo pipefail
source "$(dirname "$0")/fixture.sh"
recipe=$(realpath configs/recipes/deepseek_v3_671b.textproto)
in_fixture "$1" "$2"
verify() { shoestring verify "$@"; }

# refused CODE REGEX FLAGS...: the verb must end with CODE and a line like REGEX, and print nothing.
refused() {
  local code=$1 regex=$2 got=0
  shift 2
  verify "$@" > out 2> err || got=$?
  [[ "${got}" -eq "${code}" ]] || fail "'$*' ended with ${got}, not ${code}: $(cat err)"
  [[ ! -s out ]] || fail "'$*' printed $(cat out)"
  grep -qE -- "${regex}" err || fail "'$*' said nothing like '${regex}': $(cat err)"
}

config=(--config tiny.textproto --set train.lanes=4 --set 'train.phase[0].batch.sequences=16'
  --set 'train.phase[1].batch.sequences=16' --set model.layers=3)
on_four=(--set layout.pipeline_ranks=2 --set layout.stages=2 --set layout.data_ranks=2 --set layout.expert_ranks=2
  --set layout.zero1=true)

# With shards, and both phases.
verify "${config[@]}" "${on_four[@]}" --against one-rank --write-golden tiny.golden > four.txt 2> log.txt
head -n 1 four.txt | grep -qx "equal: 4 ranks give the bits of one rank in 2 steps" || fail "$(cat four.txt)"
grep -qE "^program \(SHA-256\) +[0-9a-f]{64}$" four.txt || fail "no program: $(cat four.txt)"
grep -qE "^data +the config's shards; " four.txt || fail "no shards: $(cat four.txt)"
verify "${config[@]}" "${on_four[@]}" --against one-rank --phase 1 --steps 1 --json > four.json
grep -q '"equal": true' four.json && grep -q '"ranks": 4' four.json || fail "$(cat four.json)"

# One rank alone writes the same golden; it holds for another layout, and for more steps than are compared.
verify "${config[@]}" --write-golden alone.golden 2> log.txt
cmp tiny.golden alone.golden
verify "${config[@]}" --set layout.data_ranks=4 --against alone.golden --steps 1 > golden.txt
head -n 1 golden.txt | grep -qx "equal: 4 ranks give the bits of alone.golden in 1 step" || fail "$(cat golden.txt)"

# A spoiled digest: the tensor, the step and a rank that holds it.
awk '$1 == 2 && $3 == "weights.model.norm.weight" { $2 = substr($2, 2) (substr($2, 1, 1) == "0" ? "1" : "0") } { print }' \
  alone.golden > spoiled.golden
code=0
verify "${config[@]}" "${on_four[@]}" --against spoiled.golden > spoiled.txt || code=$?
[[ "${code}" -eq 1 ]] || fail "a spoiled golden: ${code}"
head -n 1 spoiled.txt | grep -qE "^different: step 2, weights.model.norm.weight: another SHA-256; rank [23] " ||
  fail "$(cat spoiled.txt)"

# Without shards the formula's tokens, which are other data.
mv data elsewhere
verify "${config[@]}" "${on_four[@]}" --against one-rank --steps 1 > formula.txt
grep -q "by formula, the config's shards are absent" formula.txt || fail "$(cat formula.txt)"
refused 65 "alone.golden: was made from other data" "${config[@]}" --against alone.golden
mv elsewhere data

# A production layout on few ranks: pipeline, experts in two hops, ZeRO-1, FP8.
small=(--config "${recipe}" --phase 1 --shrink --set layout.pipeline_ranks=4 --set layout.stages=4
  --set 'layout.layers_per_stage=[16, 15, 15, 15]' --set layout.data_ranks=4 --set layout.expert_ranks=4
  --set layout.ranks_per_node=2 --set train.lanes=8 --set train.expert_lanes=4
  --set 'train.phase[1].batch={sequences: 32}' --set train.phase[3].layout.data_ranks=4
  --set train.phase[3].layout.expert_ranks=4)
verify "${small[@]}" --against one-rank --steps 1 > shrunk.txt 2> shrunk.log || fail "$(cat shrunk.txt shrunk.log)"
head -n 1 shrunk.txt | grep -qx "equal: 16 ranks give the bits of one rank in 1 step" || fail "$(cat shrunk.txt)"
grep -qx "shrunk model.hidden: 7168 -> 32" shrunk.log || fail "$(cat shrunk.log)"

refused 64 "needs --against one-rank" "${config[@]}"
refused 64 "against is empty" "${config[@]}" --against ""
refused 64 "steps 0: at least 1" "${config[@]}" --against one-rank --steps 0
refused 64 "steps 13: phase 0 has 12" "${config[@]}" --against one-rank --steps 13
refused 64 "phase 2: the config has 2 phases, counted from 0" "${config[@]}" --against one-rank --phase 2
refused 64 "say --against one-rank, or leave it" "${config[@]}" --against alone.golden --write-golden other.golden
refused 64 "json is for a comparison" "${config[@]}" --write-golden other.golden --json
refused 64 "config.*see 'shoestring verify --help'" --against one-rank
refused 78 "data_ranks: 3 data ranks" "${config[@]}" --set layout.data_ranks=3 --against one-rank
refused 78 "train.reduction: FAST" "${config[@]}" --set train.reduction=FAST --against one-rank
refused 74 "absent.golden" "${config[@]}" --against absent.golden
sed '2s/ .*/ x/' alone.golden > broken.golden
refused 65 "broken.golden: line 2: no SHA-256" "${config[@]}" --against broken.golden
sed '3s/ .*/ abacus/' alone.golden > foreign.golden
refused 65 "foreign.golden: was made with abacus" "${config[@]}" --against foreign.golden
refused 65 "alone.golden: was made from a config with other numerics" "${config[@]}" --set train.seed=2 --against alone.golden
refused 65 "alone.golden: has 2 steps, 3 are to be compared" "${config[@]}" --steps 3 --against alone.golden
echo "verify_test: passed"
