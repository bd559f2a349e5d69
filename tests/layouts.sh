#!/usr/bin/env bash
# Any layout gives the bits of one rank: trains 160 layouts of up to 8 ranks and compares each with one rank, counts
# what each rank did, and sees that other layouts are refused (docs/layouts.md). A few minutes on two cores.
# Arguments go to layout_matrix: --list, --only PART_OF_A_NAME, --seed N, --count N, --recipe-widths.
set -euo pipefail
cd "$(dirname "$0")/.."

cmake --preset cpu > /dev/null
cmake --build --preset cpu --target layout_matrix shoestring
SECONDS=0
status=0
build/cpu/tests/layouts/layout_matrix "$@" || status=$?

# What the matrix sees the validator refuse ends a command with exit code 78, and the field is named.
refuse() {
  local field=$1 code=0
  shift
  build/cpu/shoestring config validate --config configs/recipes/thin_16layer.textproto "$@" > /dev/null 2> "${messages}" ||
    code=$?
  if [[ ${code} -ne 78 ]] || ! grep -q "${field}" "${messages}"; then
    echo "layouts.sh: exit code ${code}, not 78 naming ${field}: $*" >&2
    status=1
  fi
}
messages=$(mktemp)
trap 'rm -f "${messages}"' EXIT
if [[ $# -eq 0 ]]; then
  refuse layout.data_ranks --set layout.data_ranks=3
  refuse layout.expert_ranks --set layout.data_ranks=8 --set layout.expert_ranks=2 --set train.expert_lanes=8
  refuse layout.exchange.path --set layout.data_ranks=8 --set layout.expert_ranks=2 --set layout.exchange.path=TWO_HOP
  refuse layout.stages --set layout.stages=5
  refuse layout.interleaved --set 'layout.interleaved={ chunks: 2 }' --set layout.stages=8 --set layout.data_ranks=16
fi
echo "tests/layouts.sh: $([[ ${status} -eq 0 ]] && echo passed || echo FAILED) after ${SECONDS} s"
exit "${status}"
