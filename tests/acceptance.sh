#!/usr/bin/env bash
# Runs what this version must show: prints a table of each command, its figure, what is required, and pass or FAIL.
#
#   tests/acceptance.sh [--here] [--log DIR] [--list] [ITEM]...
#
#   --here      use this working tree and what is built in it, instead of a fresh clone in a temporary folder
#   --log DIR   where the output of every item and the table are kept (.cache/acceptance)
#   --list      print the items and what they must show
#   ITEM        run these only, in this order; absent: all of them, about four and a half hours on 2 cores
#
# Exit codes: 0 all passed; 1 something failed; 64 usage. docs/acceptance.md explains the items.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
source tests/acceptance/items.sh

here=no
log=.cache/acceptance
items=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --here) here=yes; shift ;;
    --log)
      [[ $# -ge 2 ]] || { echo "acceptance.sh: --log needs a folder" >&2; exit 64; }
      log=$2
      shift 2
      ;;
    --list) list_items; exit 0 ;;
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *)
      is_item "$1" || { echo "acceptance.sh: no item '$1'; there are: ${all_items[*]}" >&2; exit 64; }
      items+=("$1")
      shift
      ;;
  esac
done
[[ ${#items[@]} -gt 0 ]] || items=("${all_items[@]}")
mkdir -p "${log}" && log=$(realpath "${log}")
table=${log}/table.txt
scratch=$(mktemp -d)
trap 'rm -rf "${scratch}"' EXIT

if [[ "${here}" == no ]]; then
  echo "acceptance.sh: cloning $(git rev-parse --short HEAD) into ${scratch}"
  git clone --quiet --no-hardlinks . "${scratch}/clone" || exit 1
  cd "${scratch}/clone" || exit 1
fi

row() { printf '%-13s %-5s %-60s %-44s %s\n' "$@" | tee -a "${table}"; }

: > "${table}"
row item "" figure required command
failures=0
for item in "${items[@]}"; do
  out=${log}/${item}.txt
  : > "${out}"
  command=- figure="no figure" required=-
  verdict=pass
  "item_${item}" || verdict=FAIL
  [[ "${verdict}" == pass ]] || failures=$((failures + 1))
  row "${item}" "${verdict}" "${figure}" "${required}" "${command}"
done
echo "acceptance.sh: $([[ ${failures} -eq 0 ]] && echo passed || echo "${failures} FAILED"); logs in ${log}" | tee -a "${table}"
[[ ${failures} -eq 0 ]]
