#!/usr/bin/env bash
# What holds for the command line as a whole: help in every spelling, closed standard streams, and words that name one
# checkpoint or a plain shard.
#
#   tests/launch/command_line_test.sh PROGRAM CONFIG
set -euo pipefail
source "$(dirname "$0")/fixture.sh"
in_fixture "$1" "$2"

[[ "$(shoestring help train)" == "$(shoestring train --help)" ]] || fail "help train is not train --help"
[[ "$(shoestring help data stat)" == "$(shoestring data stat --help)" ]] || fail "help data stat"
[[ "$(shoestring help)" == "$(shoestring --help)" ]] || fail "help is not --help"
for first in data config checkpoint; do
  shoestring "${first}" --help > out
  grep -q "^  ${first} [a-z]" out || fail "${first} --help does not list its verbs"
  [[ "$(shoestring help "${first}")" == "$(cat out)" ]] || fail "help ${first}"
done

# With closed streams no file of the run may take their numbers: what is printed would land in it.
shoestring train --config tiny.textproto --run-dir closed --max-steps 4 <&- >&- 2>&-
shoestring train --config tiny.textproto --run-dir open --max-steps 4 > /dev/null 2>&1
for file in metrics.jsonl config.textproto summary.json report.html; do
  [[ -s "closed/${file}" ]] || fail "no ${file} with closed streams"
done
[[ "$(grep -cv '^{.*}$' closed/metrics.jsonl)" -eq 0 ]] || fail "metrics.jsonl holds other lines"
cmp <(sed 's/closed/open/g' closed/config.textproto) open/config.textproto
[[ "$(digest_of closed)" == "$(digest_of open)" ]] || fail "closed streams changed the run"
[[ ! -e closed/lock ]] || fail "the lock outlives its process"

# One checkpoint, a run with a slash, the directory of checkpoints.
list=$(shoestring checkpoint list open)
[[ "${list}" == step_0000004* ]] || fail "checkpoint list: ${list}"
for place in open/ open/checkpoints open/checkpoints/step_0000004 open/checkpoints/step_0000004/; do
  [[ "$(shoestring checkpoint list "${place}")" == "${list}" ]] || fail "checkpoint list ${place}"
done

# Special tokens are text, and escaped at most once.
shoestring data stat data/train --tokenizer data/tokenizer.json --top 400 > stat
grep -q '"<｜end▁of▁sentence｜>"' stat || fail "data stat spells no eos: $(grep -m 3 '"' stat)"

# A plain Megatron shard becomes one of ours.
mkdir theirs
cp data/train.bin data/train.idx theirs
shoestring data merge --input theirs/train --output theirs/ours --tokenizer data/tokenizer.json > /dev/null
cmp theirs/ours.bin data/train.bin
shoestring data stat theirs/ours --tokenizer data/tokenizer.json > /dev/null

# A checkpoint that was saved and is not there, as when its disk is not mounted, costs nothing of the run's record.
cp -r open gone
rm -r gone/checkpoints
cp -r gone before
code=0
shoestring train --config tiny.textproto --run-dir gone --on-existing resume > /dev/null 2>&1 || code=$?
[[ "${code}" -eq 65 ]] || fail "a run without its checkpoints ended with ${code}, not 65"
diff -r gone before || fail "a run without its checkpoints was changed"

# A run that ended before its first checkpoint was whole begins anew as the refusals say. A limit on the size of files
# stands for the full disk.
code=0
(trap '' XFSZ; ulimit -f 64; shoestring train --config tiny.textproto --run-dir early > /dev/null 2>&1) || code=$?
[[ "${code}" -eq 74 && -s early/metrics.jsonl ]] || fail "a full disk ended a run with ${code}, not 74"
shoestring train --config tiny.textproto --run-dir early --on-existing resume --max-steps 4 > /dev/null 2>&1
[[ "$(digest_of early)" == "$(digest_of open)" ]] || fail "a run begun anew differs"
echo "command_line_test: good"
