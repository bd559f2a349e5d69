#!/usr/bin/env bash
# Looks at the machine code of the CUDA module's matrix kernels: tensor cores and bulk copies are used, nothing is spilled.
#
#   tests/gpu/sass_check.sh [MODULE]     default: build/cuda/libshoestring_cuda.so; needs no GPU
#
# The grouped FP8 kernel must have QGMMA and the bulk copy engine's UTMALDG (or UBLKCP), the BF16 one HGMMA and the same;
# neither may touch local memory (LDL, STL). The disassembler is cuobjdump of a CUDA toolkit, if one is on PATH, or that
# of PyPI's triton, fetched once into .cache/sass. Exit codes: 0 all there; 1 not; 64 usage; 69 no disassembler.
set -euo pipefail

here=$(cd "$(dirname "$0")/../.." && pwd)
module=${1:-${here}/build/cuda/libshoestring_cuda.so}
tools=${here}/.cache/sass
triton=3.9.0

fetch() {
  local work
  work=$(mktemp -d)
  printf 'sass_check: fetching a disassembler (triton %s, 290 MB)\n' "${triton}" >&2
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --platform manylinux_2_28_x86_64 --python-version 3.11 --dest "${work}" "triton==${triton}" || {
    printf 'sass_check: pip cannot download triton %s\n' "${triton}" >&2
    rm -rf "${work}"
    exit 69
  }
  mkdir -p "${tools}"
  python3 - "${work}" "${tools}" << 'PYTHON'
import glob
import os
import sys
import zipfile

folder, tools = sys.argv[1:]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel:
    for name in ("nvdisasm", "cuobjdump"):  # the last one says that all is there
        target = os.path.join(tools, name)
        with open(target, "wb") as out:
            out.write(wheel.read("triton/backends/nvidia/bin/" + name))
        os.chmod(target, 0o755)
PYTHON
  rm -rf "${work}"
}

[[ $# -le 1 && -f "${module}" ]] || {
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  [[ $# -gt 1 ]] || printf 'no such file: %s\n' "${module}" >&2
  exit 64
}
if ! command -v cuobjdump > /dev/null || ! command -v nvdisasm > /dev/null; then
  [[ -x "${tools}/cuobjdump" ]] || fetch
  PATH=${tools}:${PATH}
fi

# One line a kernel: its name, and how often each instruction of interest occurs.
counts=$(cuobjdump -sass "${module}" | awk '
  /Function :/ { name = $3 }
  name ~ /Grouped(Fp8|BF16)Kernel/ {
    seen[name] = 1
    for (i = 1; i <= NF; i++) {
      if ($i ~ /^(QGMMA|HGMMA)/) gmma[name, substr($i, 1, 5)]++
      if ($i ~ /^(UTMALDG|UBLKCP)/) bulk[name]++
      if ($i ~ /^(LDL|STL)([.]|$)/) local_memory[name]++
    }
  }
  END {
    for (name in seen) {
      printf "%s %d %d %d %d\n", name, gmma[name, "QGMMA"], gmma[name, "HGMMA"], bulk[name], local_memory[name]
    }
  }' | sort)

status=0
kinds=0
printf '%-8s %6s %6s %6s %6s  %s\n' result QGMMA HGMMA bulk local kernel
while read -r name qgmma hgmma bulk local_memory; do
  [[ -n "${name}" ]] || continue
  kinds=$((kinds + 1))
  wanted=${hgmma}
  [[ "${name}" == *Fp8Kernel* ]] && wanted=${qgmma}
  result=pass
  if [[ "${wanted}" -lt 4 || "${bulk}" -lt 2 || "${local_memory}" -gt 0 ]]; then
    result=FAIL
    status=1
  fi
  short=$(sed -E 's/.*(Grouped(Fp8|BF16)Kernel)I(.*)EEvN?.*/\1 \3/; s/^(.{60}).*/\1/' <<< "${name}")
  printf '%-8s %6d %6d %6d %6d  %s\n' "${result}" "${qgmma}" "${hgmma}" "${bulk}" "${local_memory}" "${short}"
done <<< "${counts}"
# Four of FP8 (two formats, tokens contracted or not), three of BF16 (three layouts).
if [[ "${kinds}" -ne 7 ]]; then
  printf 'sass_check: %d kernels where 7 were expected\n' "${kinds}" >&2
  status=1
fi
exit "${status}"
