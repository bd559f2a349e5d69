#!/usr/bin/env bash
# From a fresh clone to a trained model: installs, builds, fetches English text, trains, shows what was learned.
#
#   launch/quickstart.sh [--run-dir DIR] [--fresh] [--config FILE]... [--set PATH=VALUE]...
#
#   --run-dir DIR      where the run is written (runs/quickstart of this repository)
#   --fresh            throw away prepared data and the run, and start anew
#   --config FILE      a further config, merged over configs/recipes/tiny_cpu.textproto; may be given many times
#   --set PATH=VALUE   one field of the config; may be given many times
#
# Run again it reuses all that is there and still fits. Text, tokenizer and shards lie in .cache/quickstart/.
set -euo pipefail
readonly caller=${PWD}
cd "$(dirname "$0")/.."

readonly package=dict-gcide
readonly text_sha256=802beb667e1fb666203e750f1faea60d5c202ac5430c2083c4180494609f10a7
readonly cache=.cache/quickstart
readonly data=${cache}/data
readonly held_out=0.01  # share of the documents, for validation
run_dir=runs/quickstart
fresh=no
configs=(configs/recipes/tiny_cpu.textproto)
sets=()

say() { printf 'quickstart: %s\n' "$*"; }
fail() {
  say "$1" >&2
  exit "${2:-70}"
}

# from_caller PATH: the path as who called meant it, good in any directory.
from_caller() { case "$1" in /*) echo "$1" ;; *) echo "${caller}/$1" ;; esac }

need_value() { [[ $# -ge 2 && -n "$2" ]] || fail "$1 needs a value; see launch/quickstart.sh --help" 64; }
while [[ $# -gt 0 ]]; do
  case "$1" in
    --run-dir) need_value "$@"; run_dir=$(from_caller "$2"); shift 2 ;;
    --config) need_value "$@"; configs+=("$(from_caller "$2")"); shift 2 ;;
    --set) need_value "$@"; sets+=(--set "$2"); shift 2 ;;
    --fresh) fresh=yes; shift ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' launch/quickstart.sh; exit 0 ;;
    *) fail "unknown argument '$1'; see launch/quickstart.sh --help" 64 ;;
  esac
done
[[ "${fresh}" == no || ! -e "${run_dir}" || -e "${run_dir}/config.textproto" ]] \
  || fail "${run_dir}: holds no run (no config.textproto), so --fresh does not remove it; name another --run-dir" 64
# The run's own data; a user's --set comes later and wins.
sets=(--set "data.source[0].prefix=\"${data}/train\"" --set "data.validation_prefix=\"${data}/validation\""
  --set "data.tokenizer=\"${data}/tokenizer.json\"" "${sets[@]}")
config_flags=(--config "${configs[@]}" "${sets[@]}")

SECONDS=0
launch/install_deps.sh
build_log=.cache/build.log
mkdir -p "${cache}" "${data}"
say "building (log: ${build_log})"
{ cmake --preset cpu && cmake --build --preset cpu --target shoestring --parallel; } > "${build_log}" 2>&1 \
  || { tail -n 20 "${build_log}" >&2; fail "the build failed; see ${build_log}"; }
readonly shoestring=build/cpu/shoestring
say "built after ${SECONDS} s"
"${shoestring}" config validate "${config_flags[@]}" > "${cache}/config.txt"

# stamp FILE: the hash that FILE.stamp remembers, if FILE is there.
stamp() { [[ -e "$1" && -e "$1.stamp" ]] && cat "$1.stamp" || true; }
sha_of() { sha256sum "$@" | sha256sum | cut -d ' ' -f 1; }

if [[ "${fresh}" == yes ]]; then
  say "starting anew: removing ${data} and ${run_dir}"
  rm -rf "${data}" "${run_dir}"
  mkdir -p "${data}"
fi

fetch_text() {
  local text=${cache}/gcide.txt
  if [[ -e "${text}" ]] && sha256sum --check --status <<< "${text_sha256}  ${text}"; then
    say "text: ${text} is there"
    return
  fi
  say "fetching the Debian package ${package} (Webster's dictionary, 15 MB)"
  # Without root: the package is downloaded and unpacked here, not installed.
  (cd "${cache}" && rm -f "${package}"_*.deb && apt-get -qq download "${package}" > download.log 2>&1) \
    || fail "apt-get could not download ${package}: $(tail -n 1 "${cache}/download.log"); check the network and run 'apt-get update'" 69
  rm -rf "${cache}/unpacked"
  dpkg-deb -x "${cache}/${package}"_*.deb "${cache}/unpacked"
  zcat < "${cache}/unpacked/usr/share/dictd/gcide.dict.dz" > "${text}"
  rm -rf "${cache}/unpacked"
  sha256sum --check --status <<< "${text_sha256}  ${text}" \
    || fail "${text}: is not the text that this script was written for (another version of ${package}?)" 65
}

# An entry of the dictionary starts at a line that begins in column 0 after an empty line.
split_documents() {
  local want
  want=$(sha_of "${cache}/gcide.txt")-entries-3
  [[ "$(stamp "${cache}/corpus.jsonl")" == "${want}" ]] && { say "documents: ${cache}/corpus.jsonl is there"; return; }
  # Three stray bytes of the text are no UTF-8; they are dropped.
  { iconv -c -f UTF-8 -t UTF-8 "${cache}/gcide.txt" || true; } | LC_ALL=C awk '
    function flush_entry() { if (entry != "") printf "{\"text\": \"%s\"}\n", entry; entry = "" }
    {
      if (after_empty && $0 ~ /^[^ \t]/) flush_entry()
      after_empty = ($0 == "")
      gsub(/\\/, "&&"); gsub(/"/, "\\\""); gsub(/\t/, "\\t"); gsub(/\r/, "\\r")
      gsub(/[\001-\010\013\014\016-\037]/, "")
      entry = entry $0 "\\n"
    }
    END { flush_entry() }' > "${cache}/corpus.jsonl.tmp"
  mv "${cache}/corpus.jsonl.tmp" "${cache}/corpus.jsonl"
  echo "${want}" > "${cache}/corpus.jsonl.stamp"
  say "documents: $(wc -l < "${cache}/corpus.jsonl") entries"
}

# number_of FIELD: a number of the run's config.
number_of() { "${shoestring}" config print "${config_flags[@]}" | awk -v field="$1:" '$1 == field { print $2 }'; }

# Learned from the training text alone: which documents are held out follows from the seed and the share, as below.
train_tokenizer() {
  local size seed want
  size=$(number_of vocab_size)
  seed=$(number_of seed)
  want=$(sha_of "${cache}/corpus.jsonl")-${size}-without-${held_out}-of-seed-${seed}
  if [[ "$(stamp "${data}/tokenizer.json")" == "${want}" ]]; then
    say "tokenizer: ${data}/tokenizer.json is there"
    return
  fi
  "${shoestring}" data tokenizer-train --input "${cache}/corpus.jsonl" --vocab-size "${size}" \
    --validation-fraction "${held_out}" --seed "${seed}" --output "${data}/tokenizer.json" --overwrite
  echo "${want}" > "${data}/tokenizer.json.stamp"
}

prepare_shards() {
  "${shoestring}" data prepare "${config_flags[@]}" --input "${cache}/corpus.jsonl" --validation-fraction "${held_out}" \
    --train-text "${data}/train.txt" --validation-text "${data}/validation.txt" --overwrite
}

train_model() {
  local before=${SECONDS}
  "${shoestring}" train "${config_flags[@]}" --run-dir "${run_dir}" --on-existing resume | tee "${cache}/outcome.txt"
  say "trained in $((SECONDS - before)) s"
}

fetch_text
split_documents
train_tokenizer
prepare_shards
say "data ready after ${SECONDS} s; training in ${run_dir}"
train_model
say "a sample of text:"
"${shoestring}" generate --checkpoint "${run_dir}" --prompt 'A horse is' --tokens 80 --temperature 0.7
say "the report: ${run_dir}/report.html; everything of the run is in ${run_dir}; done after ${SECONDS} s"
