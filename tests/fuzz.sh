#!/usr/bin/env bash
# Fuzzes the readers of files from elsewhere: config and config.json, Hugging Face directory, manifest, safetensors, shard
# with its index, description of a shard, tokenizer.json.
#
#   tests/fuzz.sh [--seconds N] [--jobs N] [TARGET]...
#
#   --seconds N   how long each target runs (600)
#   --jobs N      targets that run side by side (2)
#   TARGET        config, hf, manifest, safetensors, shard, shard_meta, tokenizer; absent: all
#
# Needs Clang with libFuzzer (Debian: clang, libclang-rt-14-dev). Inputs found are kept in .cache/fuzz/<target>/ and used
# again; what breaks a target is left in .cache/fuzz/findings/. Exit codes: 0 no finding; 1 findings; 64 usage; 69 no Clang.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

seconds=600
jobs=2
targets=()
all=(config hf manifest safetensors shard shard_meta tokenizer)
need_number() { [[ $# -ge 2 && "$2" =~ ^[1-9][0-9]*$ ]] || { echo "fuzz.sh: $1 needs a positive number" >&2; exit 64; }; }
while [[ $# -gt 0 ]]; do
  case "$1" in
    --seconds) need_number "$@"; seconds=$2; shift 2 ;;
    --jobs) need_number "$@"; jobs=$2; shift 2 ;;
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *)
      [[ " ${all[*]} " == *" $1 "* ]] || { echo "fuzz.sh: no target '$1'; there are: ${all[*]}" >&2; exit 64; }
      targets+=("$1")
      shift
      ;;
  esac
done
[[ ${#targets[@]} -gt 0 ]] || targets=("${all[@]}")
command -v clang++ > /dev/null || { echo "fuzz.sh: needs clang++ with libFuzzer; apt-get install clang" >&2; exit 69; }

out=.cache/fuzz
mkdir -p "${out}/findings" "${out}/logs"
{ cmake --preset fuzz && cmake --build --preset fuzz --target fuzz_seeds "${targets[@]/#/fuzz_}" --parallel; } \
  > "${out}/logs/build.log" 2>&1 || { tail -n 20 "${out}/logs/build.log" >&2; exit 1; }
build/fuzz/tests/fuzz/fuzz_seeds configs/recipes "${out}" || exit 1

fuzz_one() {
  local target=$1
  "build/fuzz/tests/fuzz/fuzz_${target}" -max_total_time="${seconds}" -timeout=20 -rss_limit_mb=4096 -max_len=16384 \
    -artifact_prefix="${out}/findings/${target}-" -print_final_stats=1 "${out}/${target}" \
    > "${out}/logs/${target}.log" 2>&1
}
export -f fuzz_one
export seconds out

failures=0
printf '%s\n' "${targets[@]}" \
  | xargs -P "${jobs}" -I {} bash -c 'fuzz_one {}; echo $? > "${out}/logs/{}.code"'
printf '%-12s %-8s %12s %10s %8s\n' target verdict runs features seconds
for target in "${targets[@]}"; do
  log=${out}/logs/${target}.log
  verdict=clean
  [[ "$(cat "${out}/logs/${target}.code")" == 0 ]] || { verdict=FINDING; failures=$((failures + 1)); }
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "${log}")
  features=$(grep -oE ' ft: [0-9]+' "${log}" | tail -n 1 | grep -oE '[0-9]+')
  took=$(sed -n 's/^Done .* in \([0-9]*\) second.*/\1/p' "${log}")
  printf '%-12s %-8s %12s %10s %8s\n' "${target}" "${verdict}" "${runs:--}" "${features:--}" "${took:--}"
  [[ "${verdict}" == clean ]] || grep -E 'ERROR|check failed|SUMMARY' "${log}" | head -n 3
done
exit $((failures > 0))
