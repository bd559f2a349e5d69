#!/usr/bin/env bash
# Starts a program of the bundle: ./start PROGRAM [ARGUMENT...], or as bin/PROGRAM, which leads here.
#
# On a system whose C library is as new as the one the bundle was built with, the program runs as any other. On an older
# one, or where there is none, it runs through the dynamic loader and the C library that the bundle carries. The CUDA
# libraries are found by tests/gpu/find_cuda.sh; without them programs start, and say what they miss when they need it.
set -uo pipefail
root=$(dirname "$(readlink -f "$0")")
name=$(basename "$0")
if [[ "${name}" == start ]]; then
  if [[ $# -eq 0 || ! -x "${root}/libexec/$1" ]]; then
    echo "start: which program? there are: $(cd "${root}/libexec" && echo *)" >&2
    exit 64
  fi
  name=$1
  shift
fi

cuda=$("${root}/tests/gpu/find_cuda.sh" 2> /dev/null)
# $(<FILE) is the shell's own; `getconf` belongs to the C library that is asked about.
needed=$(< "${root}/glibc/VERSION")
have=$(getconf GNU_LIBC_VERSION 2> /dev/null)
have=${have#glibc }
export SHOESTRING_CUDA_LIBRARY_PATH=${cuda}
if [[ "${SHOESTRING_CARRIED_LIBC:-no}" == no && -n "${have}" ]] &&
   [[ "$(printf '%s\n%s\n' "${needed}" "${have}" | sort -V | head -n 1)" == "${needed}" ]]; then
  [[ -z "${cuda}" ]] || export LD_LIBRARY_PATH=${cuda}${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}
  exec "${root}/libexec/${name}" "$@"
fi
exec "${root}/glibc/ld-linux-x86-64.so.2" --argv0 "${name}" \
  --library-path "${root}/glibc:${root}/lib${cuda:+:${cuda}}${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}" "${root}/libexec/${name}" "$@"
