#!/usr/bin/env bash
# Format and lint: clang-format over every source; with --tidy [FILE...] also clang-tidy over the named or changed files.
#
# Needs clang-format 14 and, for --tidy, clang-tidy 14 and a configured build/cpu (tests/run.sh makes it).
set -euo pipefail
cd "$(dirname "$0")/.."

need() {
  command -v "$1" > /dev/null && return
  echo "lint.sh: no $1; on Debian 12: apt-get install $1" >&2
  exit 69
}

need clang-format-14
mapfile -t sources < <(git ls-files --cached --others --exclude-standard '*.h' '*.cc' '*.cu' '*.cuh')
unformatted=()
for source in "${sources[@]}"; do
  clang-format-14 --dry-run -Werror "${source}" 2> /dev/null || unformatted+=("${source}")
done
if [[ ${#unformatted[@]} -gt 0 ]]; then
  echo "lint.sh: ${#unformatted[@]} of ${#sources[@]} files are not formatted; run: clang-format-14 -i ${unformatted[*]}" >&2
  exit 1
fi
echo "lint.sh: ${#sources[@]} files are formatted"

[[ "${1:-}" == --tidy ]] || exit 0
shift
need clang-tidy-14
files=("$@")
if [[ ${#files[@]} -eq 0 ]]; then
  mapfile -t files < <(git diff --name-only --diff-filter=d HEAD -- '*.cc')
fi
if [[ ${#files[@]} -eq 0 ]]; then
  echo "lint.sh: no changed .cc file to tidy"
  exit 0
fi
clang-tidy-14 -p build/cpu --quiet "${files[@]}"
