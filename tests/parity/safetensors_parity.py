#!/usr/bin/env python3
"""Compares safetensors files that Shoestring wrote with what the reference library reads in them.

    python3 -m venv VENV && VENV/bin/pip install safetensors numpy
    VENV/bin/python tests/parity/safetensors_parity.py FILE.safetensors... [--copy OURS THEIRS]...

For each file (a shard of a checkpoint, an exported model): the reference library must open it, must find
names, dtypes and shapes as our own parse of the header does, and must read the same bytes. BF16 is compared as bytes.

--copy: OURS is what we wrote of the weights that we had read from THEIRS, a file that the reference library wrote. It
must find the same in both, name by name, so that no two tensors have changed places.
"""

import argparse
import json
import struct

from safetensors import deserialize, safe_open


def header_of(data):
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), 8 + length


def compare(path):
    with open(path, "rb") as file:
        data = file.read()
    header, start = header_of(data)
    metadata = header.pop("__metadata__", {})
    with safe_open(path, framework="numpy") as opened:
        assert set(opened.keys()) == set(header), f"{path}: other names"
        assert (opened.metadata() or {}) == metadata, f"{path}: other metadata"
        for name in opened.keys():
            assert list(opened.get_slice(name).get_shape()) == header[name]["shape"], f"{path}: {name}: other shape"
    tensors = dict(deserialize(data))
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        theirs = tensors[name]
        assert theirs["dtype"] == entry["dtype"], f"{path}: {name}: dtype {theirs['dtype']}"
        assert list(theirs["shape"]) == entry["shape"], f"{path}: {name}: shape {theirs['shape']}"
        assert bytes(theirs["data"]) == data[start + begin : start + end], f"{path}: {name}: other bytes"
    if start % 8:
        raise AssertionError(f"{path}: data begins at byte {start}, not a multiple of 8")
    print(f"{path}: {len(header)} tensors, {len(data)} bytes: the same")


def tensors_of(path):
    with open(path, "rb") as file:
        return {name: (t["dtype"], list(t["shape"]), bytes(t["data"])) for name, t in deserialize(file.read())}


def compare_copy(ours, theirs):
    written, source = tensors_of(ours), tensors_of(theirs)
    assert set(written) == set(source), f"{ours}: other names than {theirs}: {sorted(set(written) ^ set(source))}"
    assert len({data for _, _, data in source.values()}) == len(source), f"{theirs}: equal tensors could change places"
    for name, tensor in source.items():
        assert written[name] == tensor, f"{ours}: {name}: is not that of {theirs}"
    print(f"{ours}: {len(source)} tensors: those of {theirs}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--copy", nargs=2, action="append", default=[], metavar=("OURS", "THEIRS"))
    options = parser.parse_args()
    for path in options.files:
        compare(path)
    for ours, theirs in options.copy:
        compare_copy(ours, theirs)


if __name__ == "__main__":
    main()
