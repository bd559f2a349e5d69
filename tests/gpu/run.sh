#!/usr/bin/env bash
# Everything that one GPU can show, in at most nine minutes: tests, probe, training beside the CPU's, rates, sanitizers.
#
#   tests/gpu/run.sh [--out DIR] [--minutes N] [--only PATTERN]
#
#   --out DIR        where logs, answers and the table are kept (gpu_results)
#   --minutes N      stop beginning items after that (9)
#   --only PATTERN   items whose name matches this regular expression
#
# Works in a bundle as it is (tests/gpu/bundle.sh) and in a source tree whose build/cuda is built. Items have limits of
# their own; one that fails stops no other. Exit codes: 0 all passed; 1 something failed; 64 usage; 69 no GPU.
set -uo pipefail
source "$(dirname "$0")/items.sh"

out=gpu_results minutes=9 only=.
while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) print_usage; exit 0 ;;
    --out) need_value "$@"; out=$2 ;;
    --minutes) need_value "$@"; minutes=$2 ;;
    --only) need_value "$@"; only=$2 ;;
    *) say_and_exit 64 "unknown flag '$1'" ;;
  esac
  shift 2
done
[[ "${minutes}" =~ ^[0-9]+$ ]] || say_and_exit 64 "--minutes ${minutes}: a whole number"
need_gpu 1
use_bundle
deadline=$((minutes * 60))
mkdir -p "${out}" && out=$(realpath "${out}")
cd "${root}" || exit 1
rm -f "${out}"/*.log

wanted() { [[ "$1" =~ ${only} ]]; }
maybe() { if wanted "$1"; then item "$@"; fi; }

maybe libraries 30 'libcudnn' tests/gpu/find_cuda.sh --table
maybe doctor 30 'devices' bin/shoestring doctor --directory "${out}"

# --- tests ---------------------------------------------------------------------------------------------------------------
# Cases that run on a GPU have "cuda" in their name. A case that was skipped here was not tested: that is a failure.
gpu_cases() {  # PROGRAM
  local log
  log=$(mktemp)
  "bin/$1" --gtest_filter='*cuda*:*Cuda*' 2>&1 | tee "${log}"
  local code=${PIPESTATUS[0]} skipped tests
  skipped=$(grep -c '^\[  SKIPPED \].*ms)$' "${log}")
  tests=$(sed -nE 's/^\[==========\] ([0-9]+) tests? from .* ran.*/\1/p' "${log}")
  rm -f "${log}"
  echo "cases on the GPU: ${tests:-0}, skipped ${skipped}, code ${code}"
  [[ ${code} -eq 0 && ${skipped} -eq 0 && ${tests:-0} -gt 0 ]]
}
export -f gpu_cases
for program in $(programs_of test); do
  maybe "test_${program}" 100 '^cases on the GPU|^\[  FAILED' bash -c "gpu_cases ${program}"
done

# --- what no document says -----------------------------------------------------------------------------------------------
answers=${out}/answers.md
printf '| item | question | answer |\n| --- | --- | --- |\n' > "${answers}"
if has_program probe; then
  for question in device copy attention cublaslt nccl nccl_lsa; do
    maybe "probe_${question}" 60 '^\| ' bin/probe "${question}"
  done
fi
# Two ranks on one device, each a machine to NCCL, over loopback. A kernel of each must be on the device at once.
if has_program nccl_check; then
  maybe nccl_one_rank 60 '^\| nccl' bin/nccl_check --ranks 1 --max-mib 64
  maybe nccl_two_ranks_one_device 90 '^\| nccl' bin/nccl_check --ranks 2 --one-device --max-mib 4 --item parity --item rates --item faults
fi
grep -ahE '^\| ' "${out}"/probe_*.log "${out}"/nccl_*.log >> "${answers}" 2> /dev/null

# --- training: the same recipe, text and seed on both devices ------------------------------------------------------------
train() {  # DEVICE STEPS RUN_DIR [FLAG...]
  local device=$1 steps=$2 run=$3
  shift 3
  rm -rf "${run}"
  bin/shoestring train --config configs/recipes/tiny_cpu.textproto --set "layout.device=${device}" \
    --set train.validation.interval_steps=1000000 --set train.validation.sequences=8 --max-steps "${steps}" --run-dir "${run}" "$@"
}
# The largest relative difference of the two smoothed losses (mean that keeps 0.9), after 20 steps of warm-up.
compare_losses() {  # RUN_A RUN_B
  losses() { sed -nE 's/.*"loss":([0-9.eE+-]+).*/\1/p' "$1/metrics.jsonl"; }
  paste <(losses "$1") <(losses "$2") | awk '
    NF == 2 {
      a = NR == 1 ? $1 : 0.9 * a + 0.1 * $1
      b = NR == 1 ? $2 : 0.9 * b + 0.1 * $2
      d = (a > b ? a - b : b - a) / b
      if (NR > 20 && d > worst) worst = d
    }
    END {
      printf "%d steps, smoothed losses %.5f and %.5f, largest difference %.4f %%\n", NR, a, b, 100 * worst
      exit !(NR > 40 && worst <= 0.0025)
    }'
}
train_both() {
  local steps=120 compare=(--config configs/presets/tiny_compare.textproto)
  train CPU "${steps}" "${out}/run_cpu" "${compare[@]}" && train CUDA "${steps}" "${out}/run_cuda" "${compare[@]}" &&
    compare_losses "${out}/run_cuda" "${out}/run_cpu"
  local code=$?
  rm -rf "${out}"/run_cpu/checkpoints "${out}"/run_cuda/checkpoints  # metrics and reports stay
  return "${code}"
}
train_twice() {  # two runs on the GPU give the same bits
  train CUDA 20 "${out}/run_twice" --set checkpoint.interval_steps=20 && mv "${out}/run_twice" "${out}/run_first" &&
    train CUDA 20 "${out}/run_twice" --set checkpoint.interval_steps=20 || return 1
  local first second
  first=$(bin/shoestring checkpoint check "${out}/run_first" | grep -oE '[0-9a-f]{64}' | tail -n 1)
  second=$(bin/shoestring checkpoint check "${out}/run_twice" | grep -oE '[0-9a-f]{64}' | tail -n 1)
  rm -rf "${out}/run_first" "${out}/run_twice"
  echo "state ${first:0:16} and ${second:0:16}"
  [[ -n "${first}" && "${first}" == "${second}" ]]
}
export -f train compare_losses train_both train_twice
export out
maybe train_beside_cpu 120 'largest difference' bash -c train_both
maybe train_twice 60 '^state' bash -c train_twice

# --- ranks that share the GPU give the bits of one ---------------------------------------------------------------------
verify_on_gpu() {  # FLAGS...
  bin/shoestring verify --config configs/recipes/tiny_cpu.textproto --set layout.device=CUDA --set train.lanes=4 \
    --set 'train.phase[0].micro_batch=4' --set layout.zero1=true --against one-rank "$@"
}
export -f verify_on_gpu
maybe verify_2_ranks 60 '^(equal|different)' bash -c \
  "verify_on_gpu --set layout.data_ranks=2 --set layout.expert_ranks=2"
maybe verify_8_ranks_fp8 90 '^(equal|different)' bash -c \
  "verify_on_gpu --config configs/presets/fp8_v3.textproto --set layout.pipeline_ranks=4 --set layout.stages=4 \
    --set 'layout.dualpipe={}' --set layout.data_ranks=2 --set layout.expert_ranks=2"

# --- whole steps at DeepSeek-V3's widths; below 130,000 MiB with a layer less ---------------------------------------------
if has_program step_bench; then
  v3_step=(bin/step_bench --config configs/recipes/v3_step_1gpu.textproto)
  memory_mib=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2> /dev/null | head -n 1)
  smaller=()
  [[ ${memory_mib:-130000} -ge 130000 ]] || smaller=(--set model.layers=2 --set 'train.phase[0].micro_batch=2')
  maybe step_fp8 120 'MFU|^step|^warm-up' "${v3_step[@]}" configs/presets/fp8_v3.textproto "${smaller[@]}"
  maybe step_bf16 120 'MFU|^step|^warm-up' "${v3_step[@]}" "${smaller[@]}"
fi

# --- rates ---------------------------------------------------------------------------------------------------------------
for program in $(programs_of bench); do
  maybe "bench_${program}" 90 '.' "bin/${program}"
done

# --- sanitizers ----------------------------------------------------------------------------------------------------------
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer /opt/nvidia/*/compute-sanitizer 2> /dev/null | head -n 1)
if [[ -z "${sanitizer}" ]]; then
  wanted sanitizer && note sanitizers "not run" 0 "there is no compute-sanitizer on this machine"
else
  for tool in memcheck racecheck initcheck; do
    for program in $(programs_of test); do
      maybe "sanitizer_${tool}_${program}" 60 'ERROR SUMMARY|RACECHECK SUMMARY' \
        "${sanitizer}" --tool "${tool}" --target-processes all --error-exitcode 1 \
        "bin/${program}" --gtest_filter='*cuda*:*Cuda*:-*Large*:*Rate*:*Death*'
    done
  done
fi

finish
