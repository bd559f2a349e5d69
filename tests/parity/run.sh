#!/usr/bin/env bash
# Compares this program with others that do the same, in a Python environment of its own, and prints a table.
#
#   tests/parity/run.sh [--build DIR] [--log DIR] [--list] [ITEM]...
#
#   --build DIR   the build directory; its parity targets are brought up to date (build/cpu)
#   --log DIR     where the output of every item and the table are kept (.cache/parity/log)
#   --list        print the items
#   ITEM          run these only, in this order; absent: all of them, about an hour on two idle cores
#
# Exit codes: 0 all passed; 1 something failed; 64 usage. docs/parity.md explains the items.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit

build=build/cpu
log=.cache/parity/log
all_items=(drivers golden safetensors hf recipe fp8 tokenizer throughput quality)
items=()

item_drivers() { "${python}" tests/parity/drivers_test.py; }
item_golden() { "${build}/tests/parity/hf_golden_test"; }
item_safetensors() {
  local made model status=0 files=() copies=()
  made=$(mktemp -d) || return 1
  for model in tests/parity/golden/*/model.safetensors; do
    files+=("${model}" "${made}/$(basename "${model%/*}")/model.safetensors")
    copies+=(--copy "${files[-1]}" "${model}")
    "${build}/tests/parity/parity_tool" weights --config tests/parity/golden/train.textproto --hf "${model%/*}" \
      --out "${files[-1]%/*}" || status=1
  done
  "${python}" tests/parity/safetensors_parity.py "${files[@]}" "${copies[@]}" || status=1
  rm -rf "${made}"
  return "${status}"
}
item_hf() { "${python}" tests/parity/hf_parity.py "${build}"; }
item_recipe() { "${python}" tests/parity/recipe_parity.py "${build}"; }
item_fp8() { "${python}" tests/parity/fp8_parity.py "${build}"; }
item_tokenizer() { "${python}" tests/parity/tokenizer_parity.py "${build}"; }
item_throughput() { "${python}" tests/parity/throughput.py "${build}"; }
item_quality() { "${python}" tests/parity/quality.py "${build}"; }

need_value() { [[ $# -ge 2 && -n "$2" ]] || { echo "run.sh: $1 needs a value" >&2; exit 64; }; }
while [[ $# -gt 0 ]]; do
  case "$1" in
    --build) need_value "$@"; build=$2; shift 2 ;;
    --log) need_value "$@"; log=$2; shift 2 ;;
    --list) printf '%s\n' "${all_items[@]}"; exit 0 ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *)
      [[ " ${all_items[*]} " == *" $1 "* ]] || { echo "run.sh: no item '$1'; there are: ${all_items[*]}" >&2; exit 64; }
      items+=("$1")
      shift
      ;;
  esac
done
[[ ${#items[@]} -gt 0 ]] || items=("${all_items[@]}")

python=$(tests/parity/setup.sh | tail -n 1) || exit 1
[[ -e "${build}/CMakeCache.txt" ]] || cmake --preset cpu > /dev/null || exit 1
targets=(shoestring parity_tool encode_speed hf_golden_test tokenizer_parity_tool)
cmake --build "${build}" --target "${targets[@]}" > /dev/null || exit 1

mkdir -p "${log}" && table=${log}/table.txt
: > "${table}"
failures=0
for item in "${items[@]}"; do
  verdict=pass
  "item_${item}" > "${log}/${item}.txt" 2>&1 || { verdict=FAIL; failures=$((failures + 1)); }
  printf '%-12s %-5s %s\n' "${item}" "${verdict}" "$(tail -n 1 "${log}/${item}.txt")" | tee -a "${table}"
done
result=$([[ ${failures} -eq 0 ]] && echo passed || echo "${failures} FAILED")
echo "run.sh: ${result}; logs in ${log}" | tee -a "${table}"
[[ ${failures} -eq 0 ]]
