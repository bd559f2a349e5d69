#!/usr/bin/env bash
# A gradient that is not finite stops a run before it reaches a parameter: exit code 79, one line that names the tensor,
# and nothing of what was saved is lost.
#
#   tests/launch/non_finite_test.sh PROGRAM CONFIG
set -euo pipefail
source "$(dirname "$0")/fixture.sh"
in_fixture "$1" "$2"

# Learning rate times weight decay is 100: from step 13 on every matrix grows by 99 a step, until a product overflows.
readonly diverging=(--config tiny.textproto --set train.adamw.weight_decay=10 --set train.phase[1].steps=60
  --set train.phase[1].learning_rate[0].constant=10)
readonly line='^shoestring: gradient of model\.[a-z0-9_.]+(, matrix [0-9]+ of the stack)? is -?(nan|inf) at row [0-9]+, column [0-9]+; no parameter was changed$'

# stops RUN WORDS...: the program ends with 79 and the line, which is kept in RUN.line.
stops() {
  local run=$1 code=0
  shift
  shoestring "$@" > "${run}.out" 2> "${run}.err" || code=$?
  [[ "${code}" -eq 79 ]] || fail "'$*' ended with ${code}, not 79: $(tail -n 1 "${run}.err")"
  tail -n 1 "${run}.err" > "${run}.line"
  grep -qE "${line}" "${run}.line" || fail "the last line names no tensor: $(cat "${run}.line")"
  [[ $(grep -c '^shoestring: ' "${run}.err") -eq 1 ]] || fail "more than one line says what went wrong"
  [[ ! -s "${run}.out" ]] || fail "a failed run printed an outcome"
}

# intact RUN STEP: the newest checkpoint is good, of that step, and that of a run which stopped there in good health.
intact() {
  [[ "$(cat "$1/checkpoints/LATEST")" == "step_00000$2" ]] || fail "$1: LATEST is $(cat "$1/checkpoints/LATEST")"
  [[ -z "$(find "$1/checkpoints" -name '*-0')" ]] || fail "$1: half a checkpoint was left"
  shoestring checkpoint check "$1" > "$1.check" || fail "$1: the checkpoint is bad: $(cat "$1.check")"
  [[ "$(digest_of "$1")" == "${healthy}" ]] || fail "$1: the checkpoint is not the one of step $2"
}

for mode in BF16 FP32; do
  words=("${diverging[@]}" --set "precision.mode=${mode}" --set "precision.moments=MOMENTS_${mode}")
  shoestring train "${words[@]}" --run-dir "healthy_${mode}" --max-steps 15 > /dev/null 2>&1
  healthy=$(digest_of "healthy_${mode}")
  [[ ${#healthy} -eq 64 ]] || fail "the healthy run has no digest"

  run=run_${mode}
  stops "${run}" train "${words[@]}" --run-dir "${run}"
  intact "${run}" 15
  grep -q '"exit_reason": "failed: gradient of model' "${run}/summary.json" || fail "summary.json does not say why"
  # The step that was stopped is in no file, the ones before it are.
  steps=$(wc -l < "${run}/metrics.jsonl")
  [[ "${steps}" -ge 15 && "${steps}" -lt 72 ]] || fail "metrics.jsonl has ${steps} rows"
  [[ $(grep -c '"grad_norm"' "${run}/metrics.jsonl") -eq "${steps}" ]] || fail "a row lacks a finite gradient norm"
  grep -qF "$(cut -d ' ' -f 2- "${run}.line")" "${run}/attempt_000/logs/rank_00000.log" || fail "the log does not say why"

  # Started again, it goes on from there and stops at the same place for the same reason.
  cp "${run}.line" first.line
  stops "${run}" resume --run-dir "${run}"
  cmp -s "${run}.line" first.line || fail "another line after resume: $(cat "${run}.line")"
  [[ $(wc -l < "${run}/metrics.jsonl") -eq "${steps}" ]] || fail "another number of steps after resume"
  intact "${run}" 15
  echo "${mode}: stopped in step $((steps + 1)), ${healthy:0:16}... is intact: $(cat "${run}.line")"
done
echo "non_finite_test: passed"
