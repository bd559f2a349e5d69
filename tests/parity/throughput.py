#!/usr/bin/env python3
"""Times whole training steps of ours and of PyTorch, side by side in one run, two threads each.

usage: throughput.py BUILD [--config FILE] [--rounds N] [--only NAME,...]

The model is the config's without MTP modules, balance loss and bias update, which Hugging Face's lacks: forward,
backward, clipping and AdamW on one global batch of random tokens. Contestants take turns, one step each a round, so
that a drifting machine drifts for all; a figure is the median over rounds. Exits 1 unless ours is at least twice as
fast as Hugging Face's model run eagerly, and faster than the best way to run PyTorch that we know, in each precision.
Ways that cannot run are left out, but in each precision `eager` and one more must run; with --only too.
"""

import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy
import torch
from transformers import AutoModelForCausalLM

from harness import ROOT, AdamW, Tool, Turns, print_table, relative_difference
from model import Model, ids_and_targets

MODES = ("FP32", "BF16")
# Name, way to compute the experts, compiled. The first is Hugging Face's model; its `eager` is a loop over experts.
EAGER = ("eager", "eager", False)
PEERS = (
    EAGER,
    ("eager_default", None, False),
    ("split", "split", False),
    ("padded", "padded", False),
    ("split_compiled", "split", True),
    ("padded_compiled", "padded", True),
    ("grouped_compiled", "grouped", True),
)
AGAINST_EAGER, AGAINST_BEST = 2.0, 1.0


class HuggingFace:
    def __init__(self, directory, settings, experts):
        options = {} if experts is None else {"experts_implementation": experts}
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **options).train()

    def __call__(self, rows, targets):
        logits = self.model(input_ids=rows, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def parameters(self):
        return self.model.parameters()


class Own:
    def __init__(self, directory, settings, way, compiled):
        config = json.loads((pathlib.Path(directory) / "config.json").read_text())
        self.model = Model(config, way, settings["sequence_length"], balance=False).load(directory)
        self.run = torch.compile(self.model) if compiled else self.model

    def __call__(self, rows, targets):
        return self.run(rows, targets)[0] / targets.numel()

    def parameters(self):
        return self.model.parameters()


class Peer:
    """One way to run PyTorch: a step returns its seconds and its loss."""

    def __init__(self, directory, settings, mode, name, way, compiled):
        self.name, self.mode, self.warm_up = name, mode, 4 if compiled else 1  # it compiles again for other sizes
        hugging_face = name.startswith("eager")
        self.loss = HuggingFace(directory, settings, way) if hugging_face else Own(directory, settings, way, compiled)
        self.optimizer = AdamW(self.loss.parameters(), settings, **({} if hugging_face else {"fused": True}))
        self.settings = settings

    def step(self, samples, plan):
        start = time.perf_counter()
        total = 0.0
        for micro in numpy.split(samples, len(samples) // self.settings["micro_batch"]):
            rows, targets = ids_and_targets(micro, self.settings["eos_id"], 0)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.mode == "BF16"):
                loss = self.loss(rows, targets) * (len(micro) / len(samples))
            loss.backward()
            total += loss.item()
        self.optimizer.step(plan["learning_rate"])
        return time.perf_counter() - start, total


class Ours:
    def __init__(self, build, config, mode, work):
        moments = "MOMENTS_FP32" if mode == "FP32" else "MOMENTS_BF16"
        overrides = [f"precision.mode={mode}", f"precision.moments={moments}", "model.mtp_depth=0"]
        overrides += ["precision.fp8=", "train.mtp_weight=", "train.balance_alpha=0"]
        self.name, self.mode, self.warm_up = "ours", mode, 1
        self.tool = Tool(build, [config], overrides)
        self.settings = self.tool.settings()
        self.work = work

    def start(self, directory, samples):
        self.turns = Turns(self.tool, hf=directory, samples=samples, count=1 << 30)

    def step(self, samples, plan):
        result = self.turns.step()
        return result["seconds"], result["loss"]


def prepare(ours, work):
    """Initial weights and random tokens, the same for all."""
    settings = ours.settings
    ours.tool.run("weights", out=work / "initial")
    rng = numpy.random.default_rng(1)
    shape = (settings["steps"][0]["sequences"], settings["sequence_length"] + 1)
    samples = rng.integers(settings["vocab_size"], size=shape, dtype=numpy.int32)
    samples.tofile(work / "samples")
    return work / "initial", samples


def measure(contestants, samples, plan, rounds):
    """Seconds of each contestant, a list over rounds; the first rounds warm up. A peer that cannot run is left out."""
    seconds, losses = {}, {}
    for contestant in list(contestants):
        key = contestant.mode, contestant.name
        try:
            loss = contestant.step(samples, plan)[1]
            for _ in range(contestant.warm_up):
                contestant.step(samples, plan)
            seconds[key], losses[key] = [], loss
        except Exception as error:
            if contestant.name == "ours":
                raise
            why = (str(error).splitlines() or [repr(error)])[0]
            print(f"{key[0]} {key[1]}: cannot run here: {why[:200]}", flush=True)
            contestants.remove(contestant)
    print(f"loss of the first step: {min(losses.values()):.4f} to {max(losses.values()):.4f}")
    if any(relative_difference(loss, losses[mode, "ours"]) > 0.01 for (mode, _), loss in losses.items()):
        raise SystemExit(f"the contestants do not train the same model: {losses}")
    for i in range(rounds):
        for contestant in contestants:
            seconds[contestant.mode, contestant.name].append(contestant.step(samples, plan)[0])
    return seconds


def report(seconds, tokens):
    """A table of all; per precision the two ratios that are promised. Whether they hold."""
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    rows, good = [], True
    for (mode, name), values in seconds.items():
        peer = medians[mode, name]
        ratio = statistics.median(v / o for v, o in zip(values, seconds[mode, "ours"]))
        times = f"{1e3 * peer:.0f}", f"{1e3 * min(values):.0f}", f"{tokens / peer:.0f}"
        rows.append([f"{mode} {name}", *times, f"{ratio:.2f}"])
    print_table(["one step", "median ms", "best ms", "tokens/s", "ours is faster by"], rows)
    for mode in MODES:
        peers = {name: m for (key, name), m in medians.items() if key == mode and name != "ours"}
        if EAGER[0] not in peers or len(peers) < 2:
            print(f"{mode}: {', '.join(peers) or 'nothing'} ran; {EAGER[0]} and one more way must")
            good = False
            continue
        best = min(peers, key=peers.get)
        against_best, against_eager = (peers[name] / medians[mode, "ours"] for name in (best, EAGER[0]))
        good &= against_best > AGAINST_BEST and against_eager >= AGAINST_EAGER
        print(
            f"{mode}: {against_best:.2f} times the best of PyTorch ({best}; above {AGAINST_BEST:g} is required), "
            f"{against_eager:.2f} times PyTorch eager (at least {AGAINST_EAGER:g})"
        )
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--config", default=ROOT / "configs/recipes/tiny_cpu.textproto", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", help="these ways to run PyTorch, comma-separated")
    options = parser.parse_args()
    torch.set_num_threads(2)
    wanted = options.only.split(",") if options.only else [peer[0] for peer in PEERS]
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        ours = {mode: Ours(options.build, options.config, mode, work) for mode in MODES}
        directory, samples = prepare(ours["FP32"], work)
        settings = ours["FP32"].settings
        contestants = []
        for mode in MODES:
            ours[mode].start(directory, work / "samples")
            contestants.append(ours[mode])
            contestants += [Peer(directory, settings, mode, *peer) for peer in PEERS if peer[0] in wanted]
        plan = settings["steps"][0]
        seconds = measure(contestants, samples, plan, options.rounds)
        for mode in MODES:
            ours[mode].turns.close()
    good = report(seconds, samples.shape[0] * settings["sequence_length"])
    print("throughput:", "ok" if good else "FAILED")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
