#!/usr/bin/env bash
# Tests the bundle of a built tree: its size, that it carries every library but CUDA's and the driver's, that it trains in
# a root where nothing else exists, and that the GPU scripts say in one line that there is no GPU.
#
#   tests/gpu/bundle_test.sh BUILD_DIR      exit codes: 0 passed; 1 failed; 77 this machine forbids chroot
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
scratch=$(mktemp -d)
trap 'rm -rf "${scratch}"' EXIT
root=${scratch}/root
bundle=${root}/bundle
mkdir -p "${root}"/{proc,tmp}
failures=0
fail() {
  echo "bundle_test: $*" >&2
  failures=$((failures + 1))
}

tests/gpu/bundle.sh --build "$1" --out "${scratch}/bundle.tar.gz" --folder "${bundle}" || exit 1

# Every name of the closure must be found inside; CUDA's own, and nothing else, may stay open.
for file in "${bundle}"/libexec/* "${bundle}"/lib/*; do
  while read -r library arrow path _; do
    [[ "${arrow}" == "=>" ]] || continue
    case "${path}" in
      "${bundle}"/*) ;;
      not) [[ "${library}" =~ ^lib(cuda|cudart|cublas|cublasLt|cudnn|nccl)\.so\. ]] || fail "${file##*/} needs ${library}, which is not in the bundle" ;;
      *) [[ "${library}" =~ ^lib(cuda|cudart|cublas|cublasLt|cudnn|nccl)\.so\. ]] || fail "${file##*/} takes ${library} from ${path}" ;;
    esac
  done < <("${bundle}/glibc/ld-linux-x86-64.so.2" --inhibit-cache --library-path "${bundle}/glibc:${bundle}/lib" --list "${file}" 2>&1)
done
"${bundle}/glibc/ld-linux-x86-64.so.2" --version > /dev/null || fail "the carried loader does not start"

# What run.sh asks every test for: cases that run on a GPU, which it knows by their names.
while read -r kind name; do
  [[ "${kind}" == test && -f "${bundle}/lib/libshoestring_cuda.so" ]] || continue
  # Without -q, which goes at the first case and ends the program that is still listing.
  "${bundle}/bin/${name}" --gtest_filter='*cuda*:*Cuda*' --gtest_list_tests | grep '^  ' > /dev/null || fail "${name} has no case for a GPU"
done < "${bundle}/programs.txt"

# A machine without GPU: one line, and the code for "elsewhere".
if ! nvidia-smi > /dev/null 2>&1; then
  for script in run multi; do
    said=$("${bundle}/tests/gpu/${script}.sh" --out "${scratch}/out" 2>&1)
    code=$?
    [[ ${code} -eq 69 && $(wc -l <<< "${said}") -eq 1 && "${said}" == *"no GPU"* ]] || fail "${script}.sh without a GPU: code ${code}: ${said}"
  done
fi

# The same program by way of the system's C library and of the carried one.
"${bundle}/bin/shoestring" --help > /dev/null || fail "bin/shoestring does not start"
SHOESTRING_CARRIED_LIBC=yes "${bundle}/bin/shoestring" --help > /dev/null || fail "bin/shoestring does not start with the carried C library"

# Nothing but the bundle, /proc and the kernel. `train` writes its run beside the data.
chroot=$(PATH=${PATH}:/usr/sbin:/sbin command -v chroot || true)
in_empty_root() {
  unshare --mount --fork bash -c "mount -t proc proc '${root}/proc' && cd '${root}' && exec env -i '${chroot}' '${root}' \"\$@\"" in_empty_root "$@"
}
loader=(/bundle/glibc/ld-linux-x86-64.so.2 --library-path /bundle/glibc:/bundle/lib)
if ! in_empty_root "${loader[@]}" --version > "${scratch}/chroot.log" 2>&1; then
  cat "${scratch}/chroot.log" >&2
  echo "bundle_test: no chroot here, the run in an empty root is left out" >&2
  [[ ${failures} -eq 0 ]] && exit 77
  exit 1
fi
in_empty_root "${loader[@]}" /bundle/libexec/shoestring train --config /bundle/configs/recipes/tiny_cpu.textproto \
  --set 'data.source[0].prefix=/bundle/data/train' --set data.validation_prefix=/bundle/data/validation \
  --set data.tokenizer=/bundle/data/tokenizer.json --set train.validation.interval_steps=1000000 --set train.validation.sequences=8 --max-steps 3 \
  --run-dir /tmp/run > "${scratch}/train.log" 2>&1 || { cat "${scratch}/train.log" >&2; fail "training in an empty root failed"; }
[[ $(wc -l < "${root}/tmp/run/metrics.jsonl") -eq 3 ]] || fail "the run in an empty root has not 3 steps"

[[ ${failures} -eq 0 ]] && echo "bundle_test: passed"
[[ ${failures} -eq 0 ]]
