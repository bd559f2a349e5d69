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

from harness import ROOT, Tool, print_table
from peer import Peer

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
        theirs.append(peer.step(training[at : at + plan["sequences"]], plan)["loss"])
        at += plan["sequences"]
        if (i + 1) % max(1, options.steps // 10) == 0:
            print(f"step {i + 1}: PyTorch {theirs[-1]:.4f}, ours {ours[i + 1]:.4f}", flush=True)
    peer_validation = peer.validate(validation)
    difference = our_validation / peer_validation - 1
    rows = [["training loss, first step", f"{ours[1]:.5f}", f"{theirs[0]:.5f}", f"{ours[1] / theirs[0] - 1:+.3%}"]]
    last = len(theirs)
    end = f"{ours[last]:.5f}", f"{theirs[-1]:.5f}", f"{ours[last] / theirs[-1] - 1:+.3%}"
    rows.append(["training loss, last step", *end])
    rows.append(["validation loss", f"{our_validation:.5f}", f"{peer_validation:.5f}", f"{difference:+.3%}"])
    rows.append(["seconds", f"{middle - start:.0f}", f"{time.time() - middle:.0f}", ""])
    print_table([f"{settings['name']}, {last} steps", "ours", "PyTorch", ""], rows)
    good = abs(difference) <= BOUND
    print(f"validation loss within {BOUND:.0%}: {'ok' if good else 'FAILED'}")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
