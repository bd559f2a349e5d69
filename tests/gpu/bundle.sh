#!/usr/bin/env bash
# Packs what a machine with a GPU and nothing else needs into one relocatable archive.
#
#   tests/gpu/bundle.sh [--build DIR] [--out FILE] [--folder DIR]
#
#   --build DIR    built tree to pack from (build/cuda)
#   --out FILE     the archive (DIR/shoestring_bundle.tar.gz)
#   --folder DIR   also leave the unpacked bundle there; DIR must not exist
#
# Inside: programs without symbols, the C++ libraries they load, a C library and its loader for systems whose own is
# older, the CUDA module if it was built, recipes, a small corpus prepared by the program itself, the scripts of
# tests/gpu. Needs no root and no patchelf: programs look for libraries in $ORIGIN/../lib (CMakeLists.txt), and start.sh
# does the rest. Exit codes: 0 done; 1 larger than 50 MB; 64 usage; 70 a library cannot be found.
set -euo pipefail
repository=$(realpath "$(dirname "$0")/../..")
cd "${repository}"
source tests/gpu/items.sh

build=build/cuda out="" folder=""
while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) print_usage tests/gpu/bundle.sh; exit 0 ;;
    --build) need_value "$@"; build=$2 ;;
    --out) need_value "$@"; out=$2 ;;
    --folder) need_value "$@"; folder=$2 ;;
    *) say_and_exit 64 "unknown flag '$1'" ;;
  esac
  shift 2
done
[[ -f "${build}/bundle_programs.txt" ]] || { echo "bundle.sh: ${build} is not configured; cmake --preset cuda" >&2; exit 64; }
out=$(realpath -m "${out:-${build}/shoestring_bundle.tar.gz}")
scratch=$(mktemp -d)
trap 'rm -rf "${scratch}"' EXIT
root=${scratch}/shoestring
mkdir -p "${root}"/{bin,libexec,lib,glibc,data}

# Programs: a line each, "kind path", written by CMake. Those that were not built are left out.
: > "${root}/programs.txt"
while read -r kind path; do
  [[ -x "${path}" ]] || continue
  name=$(basename "${path}")
  strip -o "${root}/libexec/${name}" "${path}"
  ln -s ../start "${root}/bin/${name}"
  echo "${kind} ${name}" >> "${root}/programs.txt"
done < "${build}/bundle_programs.txt"
[[ -s "${root}/programs.txt" ]] || { echo "bundle.sh: nothing is built in ${build}" >&2; exit 64; }
[[ -f "${build}/libshoestring_cuda.so" ]] && strip -o "${root}/lib/libshoestring_cuda.so" "${build}/libshoestring_cuda.so"

# Libraries: what the loader finds, the C library apart from the others, CUDA's own left out.
carry_libraries() {
  local library path
  while read -r library path; do
    case "${library}" in
      libcuda.so* | libcudart.so* | libcublas*.so* | libcudnn*.so* | libnccl.so* | libnvrtc*.so* | linux-vdso*) continue ;;
      ld-linux* | libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | libresolv.so.* | libutil.so.*)
        cp -Lu "${path}" "${root}/glibc/${library}" ;;
      *)
        [[ -f "${path}" ]] || { echo "bundle.sh: ${library}, needed by $1, is nowhere" >&2; exit 70; }
        [[ -f "${root}/lib/${library}" ]] || strip -o "${root}/lib/${library}" "$(realpath "${path}")" ;;
    esac
  done < <(ldd "$1" | sed -nE 's#^\s*(\S+) => (\S+) \(.*#\1 \2#p; s#^\s*(/\S*/(ld-linux\S+)) \(.*#\2 \1#p; s#^\s*(\S+) => not found.*#\1 none#p')
}
for program in "${root}"/libexec/* "${root}"/lib/libshoestring_cuda.so; do
  [[ -f "${program}" ]] && carry_libraries "${program}"
done
for stub in libdl.so.2 libpthread.so.0 librt.so.1 libresolv.so.2; do  # CUDA's libraries name them
  cp -L "$(dirname "$(ldd "${root}/libexec/shoestring" | sed -nE 's#.*libc\.so\.6 => (\S+) .*#\1#p')")/${stub}" "${root}/glibc/"
done
getconf GNU_LIBC_VERSION | sed 's/^glibc //' > "${root}/glibc/VERSION"

# Recipes and scripts.
mkdir -p "${root}/configs" "${root}/tests"
cp -r configs/recipes configs/presets "${root}/configs/"
cp -r tests/gpu "${root}/tests/gpu"
rm -rf "${root}"/tests/gpu/{probe,nccl,CMakeLists.txt,*.cc,*_test.sh}
cp tests/gpu/start.sh "${root}/start"
chmod +x "${root}/start" "${root}"/tests/gpu/*.sh

# A corpus that is at hand wherever this is built: the project's own text, prepared by the program as users do it.
mkdir "${scratch}/text"
find README.md docs base configs kernels data parallel trainer launch -name '*.md' -o -name '*.h' -o -name '*.cc' |
  LC_ALL=C sort | while read -r file; do cp "${file}" "${scratch}/text/${file//\//_}.txt"; done
shoestring=$(realpath "${build}/shoestring")
prepare() {
  local recipe=${repository}/configs/recipes/tiny_cpu.textproto
  cd "${root}"
  "${shoestring}" data tokenizer-train --input "${scratch}"/text/*.txt --vocab-size 1152 --output data/tokenizer.json
  "${shoestring}" data prepare --config "${recipe}" --input "${scratch}"/text/*.txt --validation-fraction 0.02
}
(prepare) > "${scratch}/prepare.log" 2>&1 || { cat "${scratch}/prepare.log" >&2; exit 70; }

commit=$(git rev-parse --short HEAD 2> /dev/null || echo unknown)
git diff --quiet HEAD 2> /dev/null || commit+=-changed
printf 'commit %s\nbuilt %s\ncompiler %s\nlibc %s\ncuda module %s\n' "${commit}" "$(date -u +%Y-%m-%dT%H:%MZ)" \
  "$(c++ --version | head -n 1)" "$(< "${root}/glibc/VERSION")" \
  "$([[ -f "${root}/lib/libshoestring_cuda.so" ]] && echo yes || echo no)" > "${root}/VERSION"

tar -C "${scratch}" --sort=name --owner=0 --group=0 --numeric-owner -cf - shoestring | gzip -6 > "${out}.tmp"
mv "${out}.tmp" "${out}"
if [[ -n "${folder}" ]]; then
  [[ ! -e "${folder}" ]] || { echo "bundle.sh: ${folder} exists" >&2; exit 64; }
  cp -r "${root}" "${folder}"
fi
bytes=$(stat -c %s "${out}")
echo "bundle.sh: ${out}: $((bytes / 1000)) kB, $(wc -l < "${root}/programs.txt") programs, commit ${commit}"
if [[ ${bytes} -gt 50000000 ]]; then
  echo "bundle.sh: that is more than 50 MB" >&2
  exit 1
fi
