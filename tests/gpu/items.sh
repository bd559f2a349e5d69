# What run.sh and multi.sh share: where the programs are, items with a time limit each, and the table. Sourced by bash.

root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")

# say_and_exit CODE TEXT: one line, and no more.
say_and_exit() {
  echo "$(basename "$0"): $2" >&2
  exit "$1"
}

# need_value FLAG [VALUE...]: of the command line.
need_value() { [[ $# -ge 2 ]] || say_and_exit 64 "$1 needs a value"; }
# What stands at the head of the script.
print_usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "${1:-$0}"; }

# need_gpu NUMBER: leaves with 69 on a machine that has fewer. A machine with a driver lists its GPUs without any library.
need_gpu() {
  local nodes=(/proc/driver/nvidia/gpus/*/ /dev/nvidia[0-9]*)
  local there=0
  if command -v nvidia-smi > /dev/null; then
    there=$(nvidia-smi -L 2> /dev/null | grep -c '^GPU ')
  elif [[ -e "${nodes[0]}" || -e "${nodes[-1]}" ]]; then
    there=$(find /dev -maxdepth 1 -name 'nvidia[0-9]*' | wc -l)
  fi
  gpus=${there}
  [[ ${there} -ge 1 ]] || say_and_exit 69 "no GPU on this machine (nvidia-smi lists none); run it where one is"
  [[ ${there} -ge $1 ]] || say_and_exit 69 "$1 GPUs are needed and ${there} are here; run it where they are"
}

# In a source tree the bundle is packed from build/cuda first; in a bundle there is nothing to do.
use_bundle() {
  [[ -d "${root}/libexec" ]] && return
  local folder=${root}/build/cuda/bundle
  rm -rf "${folder}"
  "${root}/tests/gpu/bundle.sh" --build "${root}/build/cuda" --folder "${folder}" ||
    say_and_exit 70 "no bundle; build it with: cmake --preset cuda && cmake --build --preset cuda"
  root=${folder}
}

has_program() { [[ -x "${root}/libexec/$1" ]]; }
programs_of() { awk -v kind="$1" '$1 == kind { print $2 }' "${root}/programs.txt"; }
# has_verb NAME: whether this version of the program knows the verb.
has_verb() { "${root}/bin/shoestring" "$1" --help > /dev/null 2>&1; }

rows=()
failures=0
# note NAME VERDICT SECONDS FIGURE: a line of the table.
note() {
  rows+=("$(printf '%-34s %-8s %5s s  %s' "$1" "$2" "$3" "${4:0:110}")")
  echo "${rows[-1]}"
  [[ "$2" == FAIL || "$2" == TIMEOUT ]] && failures=$((failures + 1))
  return 0
}

# item NAME LIMIT_S FIGURE_PATTERN COMMAND...: runs the command with at most that many seconds, and never beyond
# `deadline`; its output goes to OUT/NAME.log; the figure in the table is the last line that matches the pattern.
item() {
  local name=$1 limit=$2 pattern=$3 log=${out}/$1.log
  shift 3
  local left=$((deadline - SECONDS)) began=${SECONDS} code=0 verdict=pass
  if [[ ${left} -lt 5 ]]; then
    note "${name}" "not run" 0 "no time left"
    return
  fi
  [[ ${limit} -lt ${left} ]] || limit=${left}
  timeout --kill-after=5 "${limit}" "$@" > "${log}" 2>&1 || code=$?
  case ${code} in
    0) ;;
    124 | 137) verdict=TIMEOUT ;;
    *) verdict=FAIL ;;
  esac
  local figure
  figure=$(grep -aE "${pattern}" "${log}" | tail -n 1 | tr -s ' ')
  [[ ${verdict} == pass || -n "${figure}" ]] || figure=$(grep -av '^$' "${log}" | tail -n 1)
  [[ ${verdict} == FAIL ]] && figure="code ${code}: ${figure}"
  note "${name}" "${verdict}" "$((SECONDS - began))" "${figure}"
}

# finish: the table once more, in OUT/table.txt too; the script's exit code.
finish() {
  {
    echo
    cat "${root}/VERSION"
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null
    echo
    printf '%s\n' "${rows[@]}"
    echo
    echo "$(basename "$0"): $([[ ${failures} -eq 0 ]] && echo passed || echo "${failures} FAILED") in ${SECONDS} s; logs in ${out}"
  } | tee "${out}/table.txt"
  [[ ${failures} -eq 0 ]]
}
