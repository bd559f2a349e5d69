#!/usr/bin/env bash
# The whole test suite: installs what is missing, builds, runs every test. Arguments go to ctest (say, -R tidy).
set -euo pipefail
cd "$(dirname "$0")/.."

# The CUDA module is built where its toolkit is, so that it always compiles; tests that need a GPU are skipped without one.
cuda_toolkit() {
  local nvcc include
  nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2> /dev/null) || { echo "there is no nvcc"; return 1; }
  "${nvcc}" --version | grep -qE 'release (1[3-9]|[2-9][0-9])\.' || { echo "${nvcc} is older than release 13"; return 1; }
  include=$(dirname "$(dirname "$(realpath "${nvcc}")")")/include
  [[ -f "${include}/cudnn.h" && -f "${include}/nccl.h" ]] || { echo "${include} has no cudnn.h or no nccl.h"; return 1; }
}
cuda=ON
why=$(cuda_toolkit) || { cuda=OFF; echo "tests/run.sh: ${why}: the CUDA module is not built, and its tests are left out"; }

SECONDS=0
launch/install_deps.sh
if [[ "${cuda}" == ON ]]; then launch/fetch_cudnn_frontend.sh || echo "tests/run.sh: without cudnn-frontend" >&2; fi
cmake --preset cpu -DSHOESTRING_CUDA="${cuda}"
cmake --build --preset cpu --parallel
echo "tests/run.sh: built after ${SECONDS} s"
status=0
ctest --preset cpu --parallel 2 "$@" || status=$?
echo "tests/run.sh: $([[ ${status} -eq 0 ]] && echo passed || echo FAILED) after ${SECONDS} s"
exit "${status}"
