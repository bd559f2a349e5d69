#!/usr/bin/env bash
# Starts a run again that has nothing left to do, compares it with its like, and takes its terminal away: what it wrote
# about itself stays whole.
#
#   tests/launch/record_test.sh PROGRAM CONFIG
set -euo pipefail
source "$(dirname "$0")/fixture.sh"
in_fixture "$1" "$2"
expect() { grep -qE "$2" "$1" || fail "$1 has no line '$2': $(cat "$1")"; }

# record RUN: what must not change, the count of starts aside.
record() { grep -v '"generation"' "$1/summary.json"; cat "$1/metrics.jsonl" "$1/report.html"; }

# Nothing left to do at --max-steps, and at the end of the run; one rank, and two that must agree.
for ranks in 1 2; do
  run=done_${ranks}
  flags=(--config tiny.textproto --set "layout.data_ranks=${ranks}" --run-dir "${run}" --on-existing resume)
  for steps in 10 0; do
    shoestring train "${flags[@]}" --max-steps "${steps}" > "${run}_first.txt" 2> /dev/null
    record "${run}" > "${run}_first.record"
    for again in 2 3; do
      shoestring train "${flags[@]}" --max-steps "${steps}" > "${run}_again.txt" 2> /dev/null
      record "${run}" > "${run}_again.record"
      cmp "${run}_first.record" "${run}_again.record" || fail "${run}: start ${again} to ${steps} changed the record"
      diff <(grep loss "${run}_first.txt") <(grep loss "${run}_again.txt") \
        || fail "${run}: start ${again} tells another outcome"
    done
  done
done
expect done_1_first.txt '^memory: arena [0-9.]+ MiB; beyond it the process grew by [0-9.]+ MiB$'

# A config that says its defaults differs in nothing from one that does not.
shoestring train --config done_1/config.textproto --set train.seed=2 --run-dir seed > /dev/null 2>&1
shoestring compare done_1 seed > compare.txt
[[ "$(sed -n '/^config of/,$p' compare.txt)" == $'config of seed against done_1:\n  numerics  train.seed: 1 -> 2' ]] \
  || fail "compare says more than that the seed differs: $(cat compare.txt)"

# A terminal that is closed asks for the machine back; nohup forbids that.
long=(--config tiny.textproto --set train.phase[0].steps=100000 --set checkpoint.interval_steps=0)
for threads in 1 2; do
  run=hung_${threads}
  stop_after 3 HUP "${run}" "${long[@]}" --set "layout.threads_per_rank=${threads}"
  shoestring checkpoint check "${run}" > /dev/null
done
nohup "${program}" train "${long[@]}" --run-dir kept > /dev/null 2>&1 &
pid=$!
until grep -q '"step":3,' kept/metrics.jsonl 2> /dev/null; do sleep 0.05; done
kill -HUP "${pid}"
sleep 0.3
kill -0 "${pid}" || fail "SIGHUP ended a run under nohup"
kill -TERM "${pid}"
code=0
wait "${pid}" || code=$?
[[ "${code}" -eq 75 ]] || fail "SIGTERM ended a run under nohup with ${code}, not 75"

# Who reads the first lines of the log and goes does not end the run.
set +eo pipefail
"${program}" train --config tiny.textproto --set train.log_interval_steps=1 --run-dir piped 2>&1 | head -n 1 > /dev/null
code=${PIPESTATUS[0]}
set -eo pipefail
[[ "${code}" -eq 0 ]] || fail "a closed pipe ended a run with ${code}"
expect piped/summary.json '"exit_reason": "finished"'
expect piped/attempt_000/logs/rank_00000.log '^step: 20/20 '
echo "record_test: passed"
