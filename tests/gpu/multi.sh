#!/usr/bin/env bash
# The first hour of whoever rents 8 GPUs or two machines: is NCCL right, how fast is the exchange, does every layout
# compute what one rank computes, how does training scale, and where does the time go.
#
#   tests/gpu/multi.sh [--out DIR] [--gpus N] [--minutes N]
#   tests/gpu/multi.sh --nodes N --node-rank R --shared DIR [--out DIR] [--gpus N]      once on each of N machines
#
#   --out DIR        where logs, answers and the table are kept (gpu_results)
#   --gpus N         GPUs of this machine to use (all of them)
#   --shared DIR     a folder that all machines see, empty at the start: ranks meet there
#   --minutes N      stop beginning items after that (55)
#
# Exit codes: 0 all passed; 1 something failed; 64 usage; 69 fewer than two GPUs in all. docs/gpu.md says what NCCL's
# environment should be on which network.
set -uo pipefail
source "$(dirname "$0")/items.sh"

out=gpu_results minutes=55 gpus_wanted=0 nodes=1 node_rank=0 shared=""
while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) print_usage; exit 0 ;;
    --out) need_value "$@"; out=$2 ;;
    --gpus) need_value "$@"; gpus_wanted=$2 ;;
    --nodes) need_value "$@"; nodes=$2 ;;
    --node-rank) need_value "$@"; node_rank=$2 ;;
    --shared) need_value "$@"; shared=$2 ;;
    --minutes) need_value "$@"; minutes=$2 ;;
    *) say_and_exit 64 "unknown flag '$1'" ;;
  esac
  shift 2
done
[[ "${minutes}" =~ ^[0-9]+$ ]] || say_and_exit 64 "--minutes ${minutes}: a whole number"
[[ ${nodes} -eq 1 || -d "${shared}" ]] || say_and_exit 64 "--nodes ${nodes} needs --shared DIR, seen by all of them"
if [[ ${nodes} -eq 1 ]]; then need_gpu 2; else need_gpu 1; fi
[[ ${gpus_wanted} -eq 0 || ${gpus_wanted} -gt ${gpus} ]] || gpus=${gpus_wanted}
use_bundle
deadline=$((minutes * 60))
mkdir -p "${out}" && out=$(realpath "${out}")
cd "${root}" || exit 1
world=$((nodes * gpus))

# ranks_here NAME FLAG...: this machine's ranks of one group over all machines; the worst code.
ranks_here() {
  local name=$1 code=0 pids=() pid
  shift
  if [[ ${nodes} -eq 1 ]]; then
    bin/nccl_check --ranks "${world}" "$@"
    return
  fi
  for ((i = 0; i < gpus; ++i)); do
    bin/nccl_check --rank $((node_rank * gpus + i)) --ranks "${world}" --device "${i}" --id-file "${shared}/${name}" "$@" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "${pid}" || code=$?; done
  return "${code}"
}
export -f ranks_here
export nodes node_rank gpus world shared out

item doctor 60 'devices' bin/shoestring doctor --directory "${out}"
item topology 20 'GPU0' nvidia-smi topo -m
item nccl_parity 240 '^\| nccl' bash -c "ranks_here parity --item parity"
item nccl_rates 400 'dispatch' bash -c "ranks_here rates --item rates --max-mib 256"
for ctas in 8 20; do  # what the exchange costs when compute keeps the other multiprocessors
  item "nccl_rates_${ctas}_ctas" 300 'dispatch' bash -c "ranks_here rates_${ctas} --item rates --max-mib 64 --max-ctas ${ctas}"
done
item nccl_faults 120 'dead rank' bash -c "ranks_here faults --item faults"

# What needs the launcher of several ranks is tried where this version has it.
train_on() {  # RANKS STEPS RUN_DIR FLAG...
  local ranks=$1 steps=$2 run=$3
  shift 3
  bin/shoestring train --config configs/recipes/tiny_cpu.textproto --set layout.device=CUDA --set "layout.data_ranks=${ranks}" \
    --set train.lanes=8 --set 'train.phase[0].micro_batch=2' --set train.validation.interval_steps=1000000 --set train.validation.sequences=8 --max-steps "${steps}" --run-dir "${run}" "$@"
}
tokens_per_second() { sed -nE 's/.*"tokens_per_sec":([0-9.eE+]+).*/\1/p' "$1/metrics.jsonl" | sort -g | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }'; }
scaling() {
  local ranks base="" rate
  for ranks in 1 2 4 8; do  # the same 8 lanes, so the same numbers, on all of them
    [[ ${ranks} -le ${gpus} ]] || break
    train_on "${ranks}" 60 "${out}/scale_${ranks}" > "${out}/scale_${ranks}.txt" 2>&1 || { tail -n 1 "${out}/scale_${ranks}.txt"; return 1; }
    rate=$(tokens_per_second "${out}/scale_${ranks}")
    base=${base:-${rate}}
    awk -v n="${ranks}" -v r="${rate}" -v b="${base}" 'BEGIN { printf "| scaling | %d ranks | %.0f tokens/s, %.0f %% of linear |\n", n, r, 100 * r / (n * b) }'
  done
}
export -f train_on tokens_per_second scaling
if [[ ${nodes} -eq 1 ]] && has_verb verify; then
  item verify 600 '.' bin/shoestring verify --config configs/recipes/tiny_cpu.textproto --set layout.device=CUDA \
    --set layout.data_ranks=2 --set layout.expert_ranks=2 --set train.lanes=2 --set 'train.phase[0].micro_batch=8' \
    --against one-rank --steps 5
else
  note verify "not run" 0 "$([[ ${nodes} -eq 1 ]] && echo 'this version has no verb verify' || echo 'on one machine only')"
fi
if [[ ${nodes} -eq 1 ]]; then
  item scaling 600 '^\| scaling' bash -c scaling
  trace=$(find "${out}" -path '*trace*' -name 'rank_*' 2> /dev/null | head -n 1)
  note trace "$([[ -n "${trace}" ]] && echo pass || echo 'not run')" 0 "${trace:-no run above left a trace}"
fi

{ printf '| item | question | answer |\n| --- | --- | --- |\n'; grep -ahE '^\| ' "${out}"/*.log; } > "${out}/answers.md"
finish
