#!/usr/bin/env python3
"""Compares models of ours with Hugging Face's implementation in FP32: logits, gradients, AdamW steps.

usage: hf_parity.py BUILD [CONFIG...]
BUILD is the build directory; CONFIG a name in tests/parity/configs, all of them unless given.

For each config: our weights, made uneven (gains and routing biases too), are exported by us and loaded by Hugging Face.
Both then compute the logits of one micro-batch, the gradient of one global batch, and 100 steps on the same batches.
Prints the worst figure of each; exits 1 when one is above its bound.
"""

import argparse
import os
import pathlib
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from harness import (
    CONFIGS,
    AdamW,
    Tool,
    make_samples,
    print_table,
    read_directory,
    relative_difference,
    stack_experts,
)

LOGITS_BOUND = 1e-4  # absolute
GRADIENT_BOUND = 1e-4  # of the norm
LOSS_BOUND = 1e-3  # of the loss
ALL = ("v3", "no_latent", "yarn", "temperature", "deep", "epsilon", "softmax")


def make_uneven(directory, seed):
    """Gains and biases start at 1 and 0, which would hide a mistake in either: gives them other values."""
    generator = torch.Generator().manual_seed(seed)
    path = pathlib.Path(directory) / "model.safetensors"
    tensors = read_directory(directory)
    for name, value in tensors.items():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("e_score_correction_bias"):
            tensors[name] = 0.05 * noise
        elif value.dim() == 1:
            tensors[name] = 1.0 + 0.2 * noise
        else:
            tensors[name] = value.contiguous()
    save_file(tensors, str(path))


def load_model(directory):
    """Their model with our weights; every tensor of ours must have found its place."""
    model, report = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    wrong = {key: value for key, value in report.items() if value}
    if wrong:
        raise SystemExit(f"{directory}: not loaded as written: {wrong}")
    return model.train()


def loss_of(model, rows):
    """Mean cross-entropy of the next token over all positions."""
    ids = torch.from_numpy(rows).long()
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def compare_logits(tool, directory, model, settings, samples, work):
    micro = samples[: settings["micro_batch"]]
    out = work / "logits.f32"
    tool.run("logits", hf=directory, samples=work / "samples", out=out)
    ours = torch.from_numpy(numpy.fromfile(out, dtype=numpy.float32))
    with torch.no_grad():
        theirs = model(input_ids=torch.from_numpy(micro[:, :-1]).long(), use_cache=False).logits
    return (ours.view(theirs.shape) - theirs).abs().max().item(), theirs.abs().max().item()


def compare_gradients(tool, directory, model, batch, work):
    """(worst relative difference, its name); a tensor that either side lacks is infinitely wrong."""
    tool.run("gradients", hf=directory, samples=work / "samples", out=work / "gradients")
    ours = stack_experts(read_directory(work / "gradients"))
    ours = {name: value for name, value in ours.items() if not name.endswith("e_score_correction_bias")}
    model.zero_grad()
    loss_of(model, batch).backward()
    theirs = {name: p.grad for name, p in model.named_parameters()}
    worst = (0.0, "")
    for name in sorted(set(ours) | set(theirs)):
        if name not in ours or name not in theirs:
            return float("inf"), f"{name} on one side only"
        worst = max(worst, (relative_difference(ours[name], theirs[name]), name))
    model.zero_grad()
    return worst


def compare_steps(tool, directory, model, settings, samples, work, steps):
    """(worst relative difference, its step, first and last loss of theirs)."""
    ours = tool.steps(hf=directory, samples=work / "samples", count=steps)
    optimizer = AdamW(model.parameters(), settings)
    worst, losses, at = (0.0, 0), [], 0
    for i in range(steps):
        count = settings["steps"][i]["sequences"]
        loss = loss_of(model, samples[at : at + count])
        loss.backward()
        optimizer.step(settings["steps"][i]["learning_rate"])
        at += count
        losses.append(loss.item())
        worst = max(worst, (relative_difference(ours[i]["loss"], losses[-1]), i + 1))
    return worst[0], worst[1], losses[0], losses[-1]


def compare_config(build, name, steps, work):
    tool = Tool(build, [CONFIGS / "common.textproto", CONFIGS / f"{name}.textproto"])
    settings = tool.settings()
    samples = make_samples(settings, sum(s["sequences"] for s in settings["steps"][:steps]))
    samples.tofile(work / "samples")
    tool.run("weights", out=work / "initial")
    make_uneven(work / "initial", seed=3)
    tool.run("weights", hf=work / "initial", out=work / "export")
    directory = str(work / "export")
    model = load_model(directory)
    logits, largest = compare_logits(tool, directory, model, settings, samples, work)
    batch = samples[: settings["steps"][0]["sequences"]]
    gradient, tensor = compare_gradients(tool, directory, model, batch, work)
    loss, step, first, last = compare_steps(tool, directory, model, settings, samples, work, steps)
    good = logits <= LOGITS_BOUND and gradient <= GRADIENT_BOUND and loss <= LOSS_BOUND
    row = [name, type(model).__name__, f"{logits:.2e}", f"{largest:.2f}", f"{gradient:.2e}", tensor, f"{loss:.2e}"]
    return good, row + [str(step), f"{first:.3f}", f"{last:.3f}", "ok" if good else "FAILED"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("configs", nargs="*", default=ALL)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)  # small products: a second thread would mostly wait
    results = []
    for name in options.configs or ALL:
        with tempfile.TemporaryDirectory() as work:
            results.append(compare_config(options.build, name, options.steps, pathlib.Path(work)))
        print(f"compared {name}: {'ok' if results[-1][0] else 'FAILED'}", flush=True)
    print(f"Hugging Face parity, FP32, {options.steps} steps; bounds: logits {LOGITS_BOUND:g} absolute,", end=" ")
    print(f"gradients {GRADIENT_BOUND:g} of the norm, losses {LOSS_BOUND:g} of the loss")
    header = ["config", "model", "logits", "largest", "gradient", "worst tensor", "loss", "at step"]
    header += ["first", "last", ""]
    print_table(header, [row for _, row in results])
    raise SystemExit(0 if all(good for good, _ in results) else 1)


if __name__ == "__main__":
    main()
