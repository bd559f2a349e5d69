#!/usr/bin/env bash
# Kills and stops training at many moments, resumes it, and compares the SHA-256 of the final state with a run that was
# never disturbed.
#
#   tests/launch/kill_test.sh PROGRAM CONFIG [KILLS]
set -euo pipefail
source "$(dirname "$0")/fixture.sh"

kills=${3:-12}
in_fixture "$1" "$2"
long=(--config tiny.textproto --set train.phase[0].steps=250 --set train.phase[1].steps=150
  --set checkpoint.interval_steps=10)

# same NAME RUN: the run's final state is that of the undisturbed one.
same() {
  local digest
  digest=$(digest_of "$2")
  echo "$1: ${digest}"
  [[ "${digest}" == "${whole}" ]] || fail "$1 ended in another state than the undisturbed run (${whole})"
}

start=$(date +%s%N)
shoestring train "${long[@]}" --run-dir whole > /dev/null 2>&1
length_ms=$((($(date +%s%N) - start) / 1000000))
whole=$(digest_of whole)
[[ ${#whole} -eq 64 ]] || fail "the undisturbed run has no digest"
echo "undisturbed (${length_ms} ms): ${whole}"

# kill -9, again and again in one run, after ever other times; the program goes on wherever that leaves it.
killed=0
for ((i = 0; i < kills; ++i)); do
  "${program}" train "${long[@]}" --run-dir killed --on-existing resume > /dev/null 2>&1 &
  pid=$!
  sleep "$(awk -v ms="${length_ms}" -v i="${i}" 'BEGIN { print ms / 1000 * (0.1 + 0.12 * ((i * 0.618) % 1)) }')"
  kill -9 "${pid}" 2> /dev/null || true
  code=0
  wait "${pid}" 2> /dev/null || code=$?
  [[ "${code}" -eq 137 ]] && killed=$((killed + 1))
  [[ "${code}" -eq 137 || "${code}" -eq 0 ]] || fail "start ${i} ended with ${code}"
done
[[ "${killed}" -gt 0 ]] || fail "no run was killed in time"
shoestring train "${long[@]}" --run-dir killed --on-existing resume > /dev/null 2>&1
same "killed ${killed} times" killed

# A polite stop: saved at once, exit code 75, and strict resume. A signal may reach any thread of the process.
for threads in 1 2; do
  run=stopped_${threads}
  stop_after 100 TERM "${run}" "${long[@]}" --set "layout.threads_per_rank=${threads}"
  shoestring resume --run-dir "${run}" > /dev/null 2>&1
  same "stopped by SIGTERM, threads_per_rank=${threads}" "${run}"
done

# In the middle of a phase, at its end, and where the next begins; one thread and two.
shoestring train "${long[@]}" --run-dir parts --max-steps 3 > /dev/null 2>&1
shoestring resume --run-dir parts --max-steps 250 --set layout.threads_per_rank=2 > /dev/null 2>&1
shoestring resume --run-dir parts --max-steps 251 --set checkpoint.keep=1 > /dev/null 2>&1
shoestring resume --run-dir parts > /dev/null 2>&1
same "in four parts" parts

steps=$(grep -c '"step"' parts/metrics.jsonl)
[[ "${steps}" -ge 400 ]] || fail "metrics.jsonl has ${steps} rows of 400 steps"
echo "kill_test: passed"
