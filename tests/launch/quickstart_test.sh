#!/usr/bin/env bash
# What the quickstart takes from its caller's directory, and what --fresh may remove; in a repository of stubs.
#
#   tests/launch/quickstart_test.sh QUICKSTART
set -euo pipefail
source "$(dirname "$0")/fixture.sh"
script=$(realpath "$1")
root=$(mktemp -d)
trap 'rm -rf "${root}"' EXIT
repository=${root}/repository
caller=${root}/caller
mkdir -p "${root}/bin" "${caller}" "${repository}"/{launch,build/cpu}
cp "${script}" "${repository}/launch/quickstart.sh"
stub() {
  printf '#!/bin/sh\n%s\n' "$2" > "$1"
  chmod +x "$1"
}
stub "${repository}/launch/install_deps.sh" "touch begun"
stub "${repository}/build/cpu/shoestring" 'echo "$*" >> words'
stub "${root}/bin/cmake" ""
stub "${root}/bin/apt-get" "exit 1"  # ends it where it would fetch the text, which is after it removed what it may
export PATH="${root}/bin:${PATH}"

# quickstart CODE WORDS...: called from elsewhere, it must end with CODE.
quickstart() {
  local want=$1 code=0
  shift
  (cd "${caller}" && ../repository/launch/quickstart.sh "$@") > "${root}/out" 2> "${root}/err" || code=$?
  [[ "${code}" -eq "${want}" ]] || fail "'$*' ended with ${code}, not ${want}: $(cat "${root}/err")"
}

# A file in each place that --run-dir could mean, to be found again unless it was a run's.
sources() {
  mkdir -p "${repository}/data" "${caller}/data"
  touch "${repository}/data/source.cc" "${caller}/data/text.txt"
}
kept() { [[ -e "${repository}/data/source.cc" ]] || fail "$1 removed the repository's data/"; }

quickstart 0 --help
grep -q -- '--fresh' "${root}/out" || fail "no help from elsewhere: $(cat "${root}/out")"

for place in data "${caller}/data" ../repository/data .; do
  sources
  quickstart 64 --run-dir "${place}" --fresh
  kept "--run-dir ${place} --fresh"
  [[ -e "${caller}/data/text.txt" ]] || fail "--run-dir ${place} --fresh removed what is no run"
  [[ "$(wc -l < "${root}/err")" -eq 1 ]] || fail "more than a line: $(cat "${root}/err")"
  grep -q "holds no run.*; name another" "${root}/err" || fail "no reason and remedy: $(cat "${root}/err")"
  [[ ! -e "${repository}/begun" ]] || fail "it began before it refused --run-dir ${place}"
done

# A run of the caller's is what --fresh is for; one of that name here is not meant.
rm -r "${caller}/data"
mkdir "${caller}/data"
touch "${caller}/data/config.textproto" "${repository}/data/config.textproto"
quickstart 69 --run-dir data --config mine.textproto --fresh
kept "a run elsewhere"
[[ ! -e "${caller}/data" ]] || fail "--fresh left the run"
grep -q -- "--config configs/recipes/tiny_cpu.textproto ${caller}/mine.textproto " "${repository}/words" \
  || fail "--config does not mean the caller's file: $(cat "${repository}/words")"
quickstart 69 --run-dir data --fresh
kept "a run that is not there yet"
echo "quickstart_test: passed"
