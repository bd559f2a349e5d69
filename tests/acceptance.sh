#!/usr/bin/env bash
# Runs what this version must show, line by line: prints each command, its figure, and pass or fail.
#
#   tests/acceptance.sh        from the root of a clone; takes about half an hour
set -uo pipefail
cd "$(dirname "$0")/.."

shoestring=build/cpu/shoestring
log=.cache/acceptance
mkdir -p "${log}"
failures=0

# show NAME COMMAND FIGURE: runs the command, then FIGURE, a command whose output is the figure and whose status is the
# verdict.
show() {
  local figure verdict=pass
  printf '%s\n  $ %s\n' "$1" "$2"
  bash -c "$2" > "${log}/out" 2> "${log}/err" || { verdict=FAIL; tail -n 3 "${log}/err"; }
  figure=$(bash -c "$3" 2>&1) || verdict=FAIL
  printf '  %s\n  %s\n' "${figure}" "${verdict}"
  [[ "${verdict}" == pass ]] || failures=$((failures + 1))
}
out=${log}/out

show "From a clone to a trained model within 15 minutes on 2 cores, at most 5 of them training" \
  "launch/quickstart.sh --fresh" \
  "grep -E 'trained in|done after|validation loss' ${out}
   awk '/trained in/ { t = \$(NF-1) } /done after/ { d = \$(NF-1) } END { exit !(t > 0 && t <= 300 && d <= 900) }' ${out}"
show "Memory: the process grows by at most 5 % of the arena" "true" \
  "grep memory: .cache/quickstart/outcome.txt
   awk '/^memory:/ { gsub(/[(%)]/, \" \"); exit !(\$NF <= 5) }' .cache/quickstart/outcome.txt"
show "Parameters of DeepSeek-V3" \
  "${shoestring} config print --config configs/recipes/deepseek_v3_671b.textproto --parameters" \
  "cat ${out}; grep -q 671,026,419,200 ${out}"
show "Parameters of DeepSeek-V2-Lite" \
  "${shoestring} config print --config configs/recipes/v2_lite_16b.textproto --parameters" \
  "cat ${out}; grep -q 'main model *15,706,' ${out}"
show "At least 60 bad inputs, each with its exit code and line" \
  "bash tests/launch/bad_input_test.sh ${shoestring} tests/launch/tiny.textproto" \
  "tail -n 1 ${out}; awk 'END { exit !(\$1 >= 60 && \$3 == 0) }' ${out}"
show "Killed at any moment, a run ends in the same state" \
  "bash tests/launch/kill_test.sh ${shoestring} tests/launch/tiny.textproto 40" "cat ${out}"
show "The test suite" "tests/run.sh" "tail -n 1 ${out}"

echo "tests/acceptance.sh: $([[ ${failures} -eq 0 ]] && echo passed || echo "${failures} FAILED")"
[[ ${failures} -eq 0 ]]
