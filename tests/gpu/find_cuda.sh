#!/usr/bin/env bash
# Finds the CUDA libraries that the CUDA module needs, wherever they lie: a toolkit, Python packages, the system.
#
#   tests/gpu/find_cuda.sh            prints their folders, joined by ':'
#   tests/gpu/find_cuda.sh --table    prints a line a library: name, file or "missing"
#
# SHOESTRING_CUDA_LIBRARY_PATH (folders joined by ':') is searched first, then the dynamic loader's own places, then
# toolkits, then the packages nvidia-* of python3 on PATH. Exit codes: 0 all found; 69 something is missing, named on
# standard error.
set -uo pipefail
shopt -s nullglob

needed=(libcuda.so.1 libcudart.so.13 libcublasLt.so.13 libcublas.so.13 libcudnn.so.9 libnccl.so.2)
optional=(libnvrtc.so.13)  # cuDNN compiles some kernels at run time

python_folders() {
  command -v python3 > /dev/null || return 0
  timeout 20 python3 - <<'PYTHON' 2> /dev/null
import site, sys, sysconfig
places = [sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], *getattr(site, "getsitepackages", list)(), site.getusersitepackages()]
print("\n".join(dict.fromkeys(places)))
PYTHON
}

folders=()
IFS=: read -r -a named <<< "${SHOESTRING_CUDA_LIBRARY_PATH:-}"
folders+=("${named[@]}")
mapfile -t -O "${#folders[@]}" folders < <({ ldconfig -p || /sbin/ldconfig -p; } 2> /dev/null |
  sed -nE 's#^.*(libcuda|libcudart|libcublasLt|libcublas|libcudnn|libnccl|libnvrtc)\.so\.[0-9]+ .*x86-64.*=> (.*)/[^/]*$#\2#p' | sort -u)
folders+=(/usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/lib/wsl/lib
          "${CUDA_HOME:-/usr/local/cuda}/lib64" /usr/local/cuda/lib64 /usr/local/cuda-13*/lib64 /opt/cuda/lib64)
while IFS= read -r place; do
  [[ -n "${place}" ]] && folders+=("${place}"/nvidia/*/lib)
done < <(python_folders)

folder_of() {
  local folder
  for folder in "${folders[@]}"; do
    [[ -n "${folder}" && -e "${folder}/$1" ]] || continue
    echo "${folder}"
    return
  done
  return 1
}

chosen=""
missing=()
for library in "${needed[@]}" "${optional[@]}"; do
  if folder=$(folder_of "${library}"); then
    [[ "${1:-}" == --table ]] && printf '%-18s %s\n' "${library}" "${folder}/${library}"
    # The system's own folders are searched anyway; named here they would hide the libraries that the bundle carries.
    case "${folder}" in /usr/lib/x86_64-linux-gnu | /usr/lib64) continue ;; esac
    [[ ":${chosen}:" == *":${folder}:"* ]] || chosen=${chosen:+${chosen}:}${folder}
  else
    [[ "${1:-}" == --table ]] && printf '%-18s missing\n' "${library}"
    [[ " ${optional[*]} " == *" ${library} "* ]] || missing+=("${library}")
  fi
done
[[ "${1:-}" == --table ]] || echo "${chosen}"
[[ ${#missing[@]} -eq 0 ]] && exit 0
echo "find_cuda.sh: missing: ${missing[*]}; install the driver and the CUDA 13 libraries (a toolkit, or the Python packages" \
     "nvidia-cuda-runtime nvidia-cublas nvidia-cudnn-cu13 nvidia-nccl-cu13), or name their folders in" \
     "SHOESTRING_CUDA_LIBRARY_PATH" >&2
exit 69
