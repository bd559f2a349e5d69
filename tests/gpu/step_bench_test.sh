#!/usr/bin/env bash
# Tests step_bench on the CPU: it says an MFU that can be, and a breakdown that adds up to the step that it breaks down.
# And that what run.sh measures with it fits into the GPUs that it is meant for.
#
#   tests/gpu/step_bench_test.sh STEP_BENCH      in the repository's root; exit codes: 0 passed; 1 failed
set -uo pipefail
step_bench=$1
failures=0
fail() {
  echo "step_bench_test: $*" >&2
  failures=$((failures + 1))
}

tiny=(tests/launch/tiny.textproto)
sizes=(--set 'train.phase[0].sequence_length=128' --set 'train.phase[0].batch.sequences=64' --set 'train.phase[0].micro_batch=8')
# check MODE IN_FP8 CONFIG...: IN_FP8 is an awk condition on the percentage of FLOPs in FP8.
check() {
  local mode=$1 in_fp8=$2 said
  shift 2
  said=$("${step_bench}" --config "$@" "${sizes[@]}" --steps 3 --threads 1 2>&1) || { fail "${mode}: ${said}"; return; }
  awk -F '|' -v mode="tiny ${mode}" '
    function number(text) { gsub(/[^0-9.e+-]/, "", text); return text + 0 }
    index($2, mode) { seconds = number($3); best = number($4); rate = number($8); peak = number($9); mfu = number($10); fp8 = number($7) }
    /^Each operation waited for/ { sub(/.*overlaps: /, ""); sub(/ s;.*/, ""); whole_ms = 1000 * $0 }
    $2 ~ /^ (gemm|grouped_gemm|attention|norm|activation|routing|loss|optimizer|copy|quantise) / { ms += $3; rows += 1; calls += $5 }
    $2 ~ /^ outside / { outside_ms = $3 }
    END {
      sum = ms + outside_ms
      print "MFU " mfu " %, " whole_ms " ms, of it " ms " in " calls " operations of " rows " kinds, FP8 " fp8 " %"
      if (!(mfu > 0 && mfu < 120)) print "bad: MFU"
      if (!(best > 0 && best <= seconds)) print "bad: seconds"
      if (!(peak > 0 && rate / peak - mfu / 100 < 0.01 && mfu / 100 - rate / peak < 0.01)) print "bad: MFU is not rate over peak"
      if (!(rows == 10 && calls > 100)) print "bad: kinds of operations"
      if (!(sum > 0.98 * whole_ms && sum < 1.02 * whole_ms)) print "bad: the breakdown adds up to " sum
      if (!(outside_ms > -0.02 * whole_ms)) print "bad: operations take longer than their step"
      if (!(ms > 0.5 * whole_ms)) print "bad: half of the step lies outside of the operations"
      if (!('"${in_fp8}"')) print "bad: FP8"
    }' <<< "${said}" > "${log}"
  cat "${log}"
  ! grep -q '^bad' "${log}" || fail "${mode}: ${said}"
}
log=$(mktemp)
trap 'rm -f "${log}"' EXIT
check BF16 'fp8 == 0' "${tiny[@]}"
check FP8 'fp8 > 20 && fp8 < 100' "${tiny[@]}" configs/presets/fp8_v3.textproto

# expect_code CODE TEXT FLAG...
expect_code() {
  local code=$1 text=$2 said
  shift 2
  said=$("${step_bench}" "$@" 2>&1 > /dev/null)
  local got=$?
  [[ ${got} -eq ${code} && "${said}" == *"${text}"* ]] || fail "$*: code ${got}, not ${code}: ${said}"
}
expect_code 78 'train.phase: the run ends before' --config "${tiny[@]}" --steps 30
expect_code 78 'layout: one rank is measured here' --config "${tiny[@]}" --set layout.data_ranks=2
expect_code 64 'unrecognised option' --config "${tiny[@]}" --nonsense
recipe=configs/recipes/v3_step_1gpu.textproto
if ! nvidia-smi > /dev/null 2>&1; then expect_code 69 'layout.device: CUDA: ' --config "${recipe}"; fi

# fits GIB FLAG...
fits() {
  local most=$1 gib
  shift
  gib=$("${step_bench}" --memory "$@" | sed -nE 's/^v3_step_1gpu: ([0-9.]+) GiB$/\1/p')
  awk -v gib="${gib:-0}" -v most="${most}" 'BEGIN { exit !(gib > most / 2 && gib <= most) }' || fail "$*: ${gib} GiB, at most ${most}"
}
smaller=(--set model.layers=2 --set 'train.phase[0].micro_batch=2')
for preset in '' configs/presets/fp8_v3.textproto; do
  # shellcheck disable=SC2086
  fits 120 --config "${recipe}" ${preset}
  # shellcheck disable=SC2086
  fits 70 --config "${recipe}" ${preset} "${smaller[@]}"
done

[[ ${failures} -eq 0 ]] && echo "step_bench_test: passed"
[[ ${failures} -eq 0 ]]
