#!/usr/bin/env bash
# The whole test suite: installs what is missing, builds, runs every test. Arguments go to ctest (say, -R tidy).
set -euo pipefail
cd "$(dirname "$0")/.."

SECONDS=0
launch/install_deps.sh
cmake --preset cpu
cmake --build --preset cpu --parallel
echo "tests/run.sh: built after ${SECONDS} s"
status=0
ctest --preset cpu --parallel 2 "$@" || status=$?
echo "tests/run.sh: $([[ ${status} -eq 0 ]] && echo passed || echo FAILED) after ${SECONDS} s"
exit "${status}"
