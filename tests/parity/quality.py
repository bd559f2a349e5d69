#!/usr/bin/env python3
"""Trains the same model on the same tokens with us and with PyTorch, and compares the validation losses.

usage: quality.py BUILD [--config FILE] [--data DIR] [--steps N] [--precision MODE] [--set PATH=VALUE]...

The data are the quickstart's (launch/quickstart.sh prepares them). PyTorch starts from our initial weights and reads
the batches that our run reads; MTP modules, balance loss, routing biases and all schedules are in it. Exits 1 when the
losses differ by more than 2 %. With all steps of tiny_cpu it takes about a quarter of an hour on two idle cores.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import numpy
import torch

from harness import ROOT, AdamW, Tool, print_table
from model import Model, ids_and_targets

BOUND = 0.02


def train_ours(options, overrides, run_dir):
    """Metrics of each step, and the validation loss at the end."""
    command = [options.build / "shoestring", "train", "--config", options.config, "--run-dir", run_dir]
    command += [flag for o in overrides for flag in ("--set", o)] + ["--max-steps", str(options.steps)]
    with open(f"{run_dir}.log", "w") as log:
        subprocess.run(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, check=True)
    return read_metrics(run_dir)


def read_metrics(run_dir):
    lines = [json.loads(line) for line in (pathlib.Path(run_dir) / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    validation = [line["val_loss"] for line in lines if line.get("val_loss") is not None]
    return losses, validation[-1]


class Peer:
    """PyTorch's side: the model, its optimizer, and the batches of a run."""

    def __init__(self, directory, settings, precision):
        config = json.loads((pathlib.Path(directory) / "config.json").read_text())
        self.model = Model(config, "split", settings["sequence_length"]).load(directory)
        self.settings, self.optimizer = settings, AdamW(self.model.parameters(), settings, fused=True)
        self.autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "BF16")

    def targets(self, samples):
        return ids_and_targets(samples, self.settings["eos_id"], self.settings["mtp_depth"])

    def step(self, samples, plan):
        """One optimizer step over all samples; the main loss of each token."""
        tokens = len(samples) * self.settings["sequence_length"]
        depth, total, counts = self.settings["mtp_depth"], 0.0, None
        for micro in numpy.split(samples, len(samples) // self.settings["micro_batch"]):
            with self.autocast:
                main, modules, balance, chosen = self.model(*self.targets(micro))
            loss = main / tokens + plan["balance_alpha"] / len(samples) * balance
            if depth:
                loss = loss + plan["mtp_weight"] / (depth * tokens) * sum(modules)
            loss.backward()
            total += main.item()
            experts = self.model.model.layers[-1].mlp.gate.experts if chosen else 0
            new = [torch.bincount(c.flatten(), minlength=experts) for c in chosen]
            counts = new if counts is None else [a + b for a, b in zip(counts, new)]
        self.optimizer.step(plan["learning_rate"])
        self.model.update_biases(counts, plan["bias_speed"])
        return total / tokens

    @torch.no_grad()
    def validate(self, samples):
        total, targets = 0.0, 0
        for micro in numpy.array_split(samples, -(-len(samples) // self.settings["micro_batch"])):
            rows, wanted = self.targets(micro)
            with self.autocast:
                total += self.model(rows, wanted, mtp=False)[0].item()
            targets += int((wanted[:, : self.settings["sequence_length"]] >= 0).sum())
        return total / targets


def samples_of(tool, settings, path, count, **flags):
    tool.run("samples", out=path, count=count, **flags)
    row = settings["sequence_length"] + 1 + settings["mtp_depth"]
    return numpy.fromfile(path, dtype=numpy.int32).reshape(-1, row)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--config", default=ROOT / "configs/recipes/tiny_cpu.textproto", type=pathlib.Path)
    parser.add_argument("--data", default=ROOT / ".cache/quickstart/data", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=0, help="all of the config's unless given")
    parser.add_argument("--precision", choices=("FP32", "BF16"), help="of PyTorch; the config's unless given")
    parser.add_argument("--set", action="append", default=[], help="path=value, of the config")
    parser.add_argument("--run-dir", help="a run of ours with this config and these steps, instead of training")
    options = parser.parse_args()
    torch.set_num_threads(2)
    overrides = [f'data.source[0].prefix="{options.data}/train"', f'data.validation_prefix="{options.data}/validation"']
    overrides.append(f'data.tokenizer="{options.data}/tokenizer.json"')
    overrides += options.set
    tool = Tool(options.build, [options.config], overrides)
    settings = tool.settings()
    options.steps = options.steps or len(settings["steps"])
    plans = settings["steps"][: options.steps]
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        tool.run("weights", out=work / "initial")
        total = sum(p["sequences"] for p in plans)
        training = samples_of(tool, settings, work / "training", total)
        validation = samples_of(tool, settings, work / "validation", settings["validation_sequences"], validation=True)
        start = time.time()
        ours, our_validation = (
            read_metrics(options.run_dir) if options.run_dir else train_ours(options, overrides, work / "run")
        )
        middle = time.time()
        peer = Peer(work / "initial", settings, options.precision or settings["mode"])
    theirs, at = [], 0
    for i, plan in enumerate(plans):
        theirs.append(peer.step(training[at : at + plan["sequences"]], plan))
        at += plan["sequences"]
        if (i + 1) % max(1, options.steps // 10) == 0:
            print(f"step {i + 1}: PyTorch {theirs[-1]:.4f}, ours {ours[i + 1]:.4f}", flush=True)
    peer_validation = peer.validate(validation)
    difference = our_validation / peer_validation - 1
    rows = [["training loss, first step", f"{ours[1]:.5f}", f"{theirs[0]:.5f}", f"{ours[1] / theirs[0] - 1:+.3%}"]]
    last = len(theirs)
    rows.append(["training loss, last step", f"{ours[last]:.5f}", f"{theirs[-1]:.5f}", f"{ours[last] / theirs[-1] - 1:+.3%}"])
    rows.append(["validation loss", f"{our_validation:.5f}", f"{peer_validation:.5f}", f"{difference:+.3%}"])
    rows.append(["seconds", f"{middle - start:.0f}", f"{time.time() - middle:.0f}", ""])
    print_table([f"{settings['name']}, {last} steps", "ours", "PyTorch", ""], rows)
    good = abs(difference) <= BOUND
    print(f"validation loss within {BOUND:.0%}: {'ok' if good else 'FAILED'}")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
