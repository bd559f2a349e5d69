#!/usr/bin/env bash
# The whole test suite: installs what is missing, builds, runs every test. Arguments go to ctest (say, -R tidy).
set -euo pipefail
cd "$(dirname "$0")/.."

SECONDS=0
export CCACHE_BASEDIR=${PWD} CCACHE_NOHASHDIR=1  # the second build takes most of its objects from the first
launch/install_deps.sh
cmake --preset cpu
cmake --build --preset cpu --parallel
# Where the CUDA toolkit is, the GPU half too: it must compile also where nothing can run it.
cuda=no
if PATH=${PATH}:/usr/local/cuda/bin command -v nvcc > /dev/null; then
  cuda=yes
  launch/fetch_cudnn_frontend.sh || echo "tests/run.sh: without cudnn-frontend" >&2
  cmake --preset cuda
  cmake --build --preset cuda --parallel --target shoestring_cuda shoestring nccl_check probe
fi
echo "tests/run.sh: built after ${SECONDS} s"
status=0
ctest --preset cpu --parallel 2 "$@" || status=$?
if [[ "${cuda}" == yes && $# -eq 0 ]]; then ctest --preset cuda -R '^bundle_test$' || status=$?; fi
echo "tests/run.sh: $([[ ${status} -eq 0 ]] && echo passed || echo FAILED) after ${SECONDS} s"
exit "${status}"
