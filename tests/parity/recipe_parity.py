#!/usr/bin/env python3
"""Compares whole training steps with the recipe's model in PyTorch (model.py), in FP32: every loss, every gradient.

usage: recipe_parity.py BUILD [--steps N]

Two MTP modules, balance loss and bias update are on, which Hugging Face's model lacks. Prints the worst differences;
exits 1 when one is above its bound.

Rounding decides between experts whose scores are nearly equal, sooner or later differently on the two sides; the
routing biases, which go by the sign of a count, carry that on. Hence not more steps, and a bound of its own for the
norm of the gradient, which a token's other expert changes most.
"""

import argparse
import pathlib
import tempfile

import torch

from harness import CONFIGS, Tool, make_samples, print_table, read_directory, relative_difference, stack_experts
from hf_parity import GRADIENT_BOUND, LOSS_BOUND, make_uneven
from peer import Peer

CONFIG_FILES = [CONFIGS / f"{name}.textproto" for name in ("common", "v3", "recipe")]
NORM_BOUND = 2e-2
SHARED = (".embed_tokens.weight", ".shared_head.head.weight")  # copies in the MTP modules of what the main model has


def worst_gradient(tool, directory, peer, batch, plan, work):
    """(largest difference relative to the norm, its name)."""
    tool.run("gradients", hf=directory, samples=work / "samples", out=work / "gradients")
    ours = stack_experts(read_directory(work / "gradients"))
    peer.backward(batch, plan)
    worst = (0.0, "")
    for name, parameter in peer.model.named_parameters():
        worst = max(worst, (relative_difference(ours.pop(name), parameter.grad), name))
    left = [name for name in ours if not name.endswith(SHARED + ("e_score_correction_bias",))]
    if left:
        raise SystemExit(f"no gradient of theirs for {left}")
    peer.model.zero_grad()
    return worst


def worst_losses(ours, theirs):
    names = ("loss", "loss_mtp", "loss_balance", "grad_norm")
    return {name: max(relative_difference(a[name], b[name]) for a, b in zip(ours, theirs)) for name in names}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tool = Tool(options.build, CONFIG_FILES)
    settings = tool.settings()
    plans = settings["steps"][: options.steps]
    count = plans[0]["sequences"]
    samples = make_samples(settings, count * len(plans))
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        samples.tofile(work / "samples")
        tool.run("weights", out=work / "weights")
        make_uneven(work / "weights", seed=3)
        peer = Peer(work / "weights", settings, "FP32")
        gradient, tensor = worst_gradient(tool, work / "weights", peer, samples[:count], plans[0], work)
        ours = tool.steps(hf=work / "weights", samples=work / "samples", count=len(plans))
        theirs = [peer.step(samples[i * count : (i + 1) * count], plan) for i, plan in enumerate(plans)]
    losses = worst_losses(ours, theirs)
    rows = [[f"gradient of {tensor}", f"{gradient:.2e}", f"{GRADIENT_BOUND:g}"]]
    bounds = {name: NORM_BOUND if name == "grad_norm" else LOSS_BOUND for name in losses}
    rows += [[f"{name}, {len(plans)} steps", f"{value:.2e}", f"{bounds[name]:g}"] for name, value in losses.items()]
    print_table(["largest relative difference", "", "bound"], rows)
    good = gradient <= GRADIENT_BOUND and all(value <= bounds[name] for name, value in losses.items())
    print("recipe:", "ok" if good else "FAILED")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
