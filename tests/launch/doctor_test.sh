#!/usr/bin/env bash
# What `doctor` says of GPUs: one line where nothing is there; driver, devices and every library where something is.
#
#   tests/launch/doctor_test.sh PROGRAM MODULE LIBRARY      LIBRARY: a libnccl.so.2
set -euo pipefail
program=$(realpath "$1") module=$(realpath "$2") nccl=$(realpath "$3")
folder=$(mktemp -d)
trap 'rm -rf "${folder}"' EXIT
fail() {
  echo "doctor_test: $1: $(cat "${folder}/out.txt")"
  exit 1
}
said() { grep -qxE "$1" "${folder}/out.txt" || fail "no line '$1'"; }
doctor() { "${program}" doctor --directory "${folder}" > "${folder}/out.txt" 2> /dev/null || fail "code $?"; }

SHOESTRING_CUDA_MODULE=absent.so doctor
said 'devices     CPU; no CUDA: absent\.so: the CUDA module cannot be read; .*'
[[ $(grep -c 'no CUDA' "${folder}/out.txt") -eq 1 ]] || fail "more than one line says what is missing"

SHOESTRING_CUDA_MODULE=${module} SHOESTRING_CUDA_LIBRARY_PATH=$(dirname "${nccl}") doctor
said 'devices     CPU, CUDA'
said 'driver      .*, serves CUDA 13\.0'
said 'device 0    a GPU that is none, 1\.5 GiB, compute capability 9\.0'
said "library     libnccl\.so\.2 +${nccl}"
for name in libcudart.so.13 libcublasLt.so.13 libcublas.so.13 libcudnn.so.9; do
  said "library     ${name} +(/.*/lib.*|missing; install the CUDA 13 libraries .*SHOESTRING_CUDA_LIBRARY_PATH)"
done
said 'library     libnvrtc.so.13 +(/.*/lib.*|missing; only cuDNN may ask for it)'
echo "doctor_test: passed"
