#!/usr/bin/env python3
"""Compares our FP8 directories with PyTorch's float8_e4m3fn: codes, scales, and what they mean.

usage: fp8_parity.py BUILD

Weights are exported in FP32, BF16 and FP8. PyTorch quantises the BF16 weights itself, by the formula of the release, and
must get our codes and scales bit for bit; and what PyTorch makes of the codes must be what we read from them, bit for
bit. Prints a table; exits 1 on any difference.
"""

import argparse
import pathlib
import tempfile

import torch
from torch.nn import functional as F

from harness import CONFIGS, Tool, print_table, read_directory, relative_difference
from hf_parity import make_uneven

BLOCK = 128
# Widths that 128 does not divide, and matrices of several blocks in each direction.
SIZES = ("model.hidden=200", "model.dense_ffn=300", "model.moe.expert_ffn=136", "model.attention.q_lora_rank=130")


def spread(scale, shape):
    """One number a block to one number an element."""
    return scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[: shape[0], : shape[1]]


def quantise(weight, power_of_two):
    """Codes and scales of a matrix by the release's formula."""
    rows, cols = weight.shape
    padded = F.pad(weight, (0, -cols % BLOCK, 0, -rows % BLOCK))
    amax = padded.abs().view(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK).amax((1, 3))
    scale = amax / torch.tensor(448.0)
    scale[scale == 0] = 1.0
    if power_of_two:
        mantissa, exponent = torch.frexp(scale)
        scale = torch.ldexp(torch.ones_like(scale), exponent - (mantissa == 0.5).int())
    return (weight / spread(scale, weight.shape)).to(torch.float8_e4m3fn), scale


def compare(tool, work, power_of_two):
    """[matrices, other codes, other scales, other values read back, largest relative change of a matrix]."""
    flags = {"power_of_two_scales": True} if power_of_two else {}
    name = "fp8_power" if power_of_two else "fp8"
    tool.run("weights", hf=work / "f32", out=work / name, dtype="fp8", **flags)
    tool.run("weights", hf=work / name, out=work / f"{name}_back")
    bf16, written, back = (read_directory(work / d) for d in ("bf16", name, f"{name}_back"))
    matrices, codes, scales, values, change = 0, 0, 0, 0, 0.0
    for tensor, value in bf16.items():
        ours = written.pop(tensor)
        meaning = ours.float()
        if ours.dtype == torch.float8_e4m3fn:
            our_scale = written.pop(f"{tensor}_scale_inv")
            their_codes, their_scale = quantise(value.float(), power_of_two)
            matrices += 1
            codes += int((ours.view(torch.uint8) != their_codes.view(torch.uint8)).sum())
            scales += int((our_scale != their_scale).sum())
            meaning = meaning * spread(our_scale, ours.shape)
            change = max(change, relative_difference(meaning, value))
        values += int((meaning != back[tensor]).sum())
    if written:
        raise SystemExit(f"tensors that BF16 does not have: {sorted(written)}")
    return [matrices, codes, scales, values, change]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tool = Tool(options.build, [CONFIGS / f"{name}.textproto" for name in ("common", "v3", "recipe")], SIZES)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        tool.run("weights", out=work / "f32")
        make_uneven(work / "f32", seed=3)
        tool.run("weights", hf=work / "f32", out=work / "bf16", dtype="bf16")
        results = {kind: compare(tool, work, kind == "powers of two") for kind in ("plain", "powers of two")}
    header = ["scales", "matrices", "other codes", "other scales", "read otherwise", "largest change of a matrix"]
    print_table(header, [[kind, *map(str, row[:4]), f"{row[4]:.4f}"] for kind, row in results.items()])
    good = all(row[0] > 0 and not any(row[1:4]) and 0 < row[4] < 0.04 for row in results.values())
    print("fp8:", "ok" if good else "FAILED")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
