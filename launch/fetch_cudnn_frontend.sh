#!/usr/bin/env bash
# Fetches the headers of cudnn-frontend (NVIDIA, MIT licence) from PyPI's wheel, for the CUDA module's attention; does
# nothing when they are there. Without them the module builds too, and computes attention by its own, slower kernels.
#
#   launch/fetch_cudnn_frontend.sh        puts them under .cache/cudnn_frontend, where CMake looks
#
# Exit codes: 0 there; 64 usage; 65 not what was expected; 69 cannot be fetched.
set -euo pipefail

# 1.19 is the series for cuDNN 9.19, the version of CUDA 13.0's companions; headers only, the same in every wheel of it.
version=1.19.1
place=$(cd "$(dirname "$0")/.." && pwd)/.cache/cudnn_frontend
stamp=${place}/version

if [[ $# -gt 0 ]]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0"
  [[ "$1" == -h || "$1" == --help ]] && exit 0
  exit 64
fi
say() { printf 'fetch_cudnn_frontend: %s\n' "$*"; }
if [[ -f "${stamp}" && "$(cat "${stamp}")" == "${version}" ]]; then
  say "version ${version} is in ${place}"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "${work}"' EXIT
say "fetching version ${version}"
# Any platform's wheel will do: only the headers are taken.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 \
  --python-version 3.11 --dest "${work}" "nvidia-cudnn-frontend==${version}" || {
  say "pip cannot download nvidia-cudnn-frontend ${version}; is PyPI within reach, and python3-pip installed?" >&2
  exit 69
}
python3 - "${work}" << 'PYTHON'
import glob
import sys
import zipfile

folder = sys.argv[1]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel:
    for name in wheel.namelist():
        if name.startswith("include/"):
            wheel.extract(name, folder)
PYTHON
[[ -f "${work}/include/cudnn_frontend.h" ]] || {
  say "the wheel of version ${version} has no include/cudnn_frontend.h" >&2
  exit 65
}
rm -rf "${place}"
mkdir -p "${place}"
mv "${work}/include" "${place}/include"
printf '%s\n' "${version}" > "${stamp}"
say "version ${version} is in ${place}; configure again to use it"
