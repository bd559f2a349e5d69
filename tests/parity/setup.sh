#!/usr/bin/env bash
# Makes the parity harness's own virtual environment, or brings it up to date. It needs about 5 GB: the Linux wheels of
# PyTorch carry GPU libraries that they are linked against, used or not.
#
# usage: setup.sh        prints the path of its Python on the last line
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${SHOESTRING_PARITY_VENV:-$here/../../.cache/parity/venv}
stamp=$venv/requirements.done

if ! cmp -s "$here/requirements.txt" "$stamp"; then
  mkdir -p "$(dirname "$venv")"
  python3 -m venv "$venv" >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" >&2
  "$venv/bin/python" -c 'import numpy, safetensors, tokenizers, torch, transformers' >&2
  cp "$here/requirements.txt" "$stamp"
fi
printf '%s\n' "$(cd "$venv" && pwd)/bin/python"
