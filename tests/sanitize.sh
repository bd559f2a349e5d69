#!/usr/bin/env bash
# The test suite under sanitizers: tests/sanitize.sh [asan|tsan] [ctest arguments]. asan includes UBSan.
set -euo pipefail
cd "$(dirname "$0")/.."

preset="${1:-asan}"
[[ $# -eq 0 ]] || shift
case "${preset}" in
  asan | tsan) ;;
  *)
    echo "sanitize.sh: unknown preset '${preset}'; there are asan and tsan" >&2
    exit 64
    ;;
esac

SECONDS=0
launch/install_deps.sh
cmake --preset "${preset}"
cmake --build --preset "${preset}" --parallel
# No detect_stack_use_after_return: GCC 12 places variables from the end of a frame, and where one is aligned to 64 bytes
# shifts the real frame so that its end is aligned too, but not the check's own: AVX-512 stores fault in every other size.
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
status=0
ctest --preset "${preset}" --parallel 2 "$@" || status=$?
echo "sanitize.sh: ${preset} $([[ ${status} -eq 0 ]] && echo clean || echo FAILED) after ${SECONDS} s"
exit "${status}"
