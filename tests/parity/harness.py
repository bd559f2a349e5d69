"""What the parity drivers share: calling our tool, making samples, loading both sides' tensors, printing tables."""

import json
import math
import pathlib
import subprocess
import sys

import numpy
import torch
from safetensors.torch import load_file

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CONFIGS = HERE / "configs"
EXPERT_PARTS = ("gate_proj", "up_proj", "down_proj")


class Tool:
    """Our parity_tool with one config."""

    def __init__(self, build, configs, overrides=(), threads=2):
        self.program = pathlib.Path(build) / "tests" / "parity" / "parity_tool"
        self.flags = [f"--config={c}" for c in configs] + [f"--set={o}" for o in overrides]
        self.flags.append(f"--threads={threads}")

    def command(self, verb, **options):
        named = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
        flags = [name if value is True else f"{name}={value}" for name, value in named.items()]
        return [str(self.program), verb, *self.flags, *flags]

    def run(self, verb, **options):
        result = subprocess.run(self.command(verb, **options), stdout=subprocess.PIPE)
        if result.returncode:
            raise SystemExit(f"parity_tool {verb} ended with {result.returncode}")  # it has said why
        return result.stdout

    def settings(self, **options):
        return json.loads(self.run("settings", **options))

    def steps(self, **options):
        return [json.loads(line) for line in self.run("steps", **options).splitlines()]


class Turns:
    """Steps of ours, one at a time, in a process that waits in between."""

    def __init__(self, tool, **options):
        command = tool.command("steps", on_demand=True, **options)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def step(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("parity_tool stopped")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def make_samples(settings, count, seed=5):
    """Rows of ids with something to learn: runs with a stride, repeats of earlier text, noise of uneven frequency."""
    rng = numpy.random.default_rng(seed)
    vocab, row = settings["vocab_size"], settings["sequence_length"] + 1 + settings["mtp_depth"]
    frequent = (rng.zipf(1.3, size=(count, row)) - 1) % (vocab - 2)
    start, stride = rng.integers(vocab, size=(count, 1)), rng.integers(1, 6, size=(count, 1))
    runs = (start + stride * numpy.arange(row)) % (vocab - 2)
    ids = 2 + numpy.where(rng.random((count, row)) < 0.3, frequent, runs)
    half = row // 2
    copies = rng.random(count) < 0.3
    ids[copies, half : 2 * half] = ids[copies, :half]
    return numpy.ascontiguousarray(ids, dtype=numpy.int32)


def read_directory(directory):
    """All tensors of a Hugging Face directory by name."""
    tensors = {}
    for path in sorted(pathlib.Path(directory).glob("*.safetensors")):
        tensors.update(load_file(str(path)))
    return tensors


def stack_experts(tensors):
    """Released names to those of models that keep a layer's experts in one tensor, gate and up together."""
    result, layers = {}, {}
    for name, value in tensors.items():
        head, found, tail = name.partition(".mlp.experts.")
        if found:
            expert, part, _ = tail.split(".")
            layers.setdefault(head, {})[int(expert), part] = value
        else:
            result[name] = value
    for head, parts in layers.items():
        experts = range(1 + max(e for e, _ in parts))
        gate, up, down = ([parts[e, part] for e in experts] for part in EXPERT_PARTS)
        result[f"{head}.mlp.experts.gate_up_proj"] = torch.stack([torch.cat(pair) for pair in zip(gate, up)])
        result[f"{head}.mlp.experts.down_proj"] = torch.stack(down)
    return result


def relative_difference(ours, theirs):
    """|ours - theirs| / |theirs| of two numbers, or of two tensors in the Euclidean norm.

    Infinite where either has anything that is not finite: a NaN is above no bound, and max() passes it over.
    """
    ours, theirs = (torch.as_tensor(math.nan if x is None else x).double() for x in (ours, theirs))
    if ours.shape != theirs.shape or not all(x.isfinite().all() for x in (ours, theirs)):
        return math.inf
    return 0.0 if torch.equal(ours, theirs) else ((ours - theirs).norm() / theirs.norm()).item()


class AdamW:
    """torch.optim.AdamW as the recipe has it: decay on matrices only, one norm clipped over all gradients."""

    def __init__(self, parameters, settings, **options):
        parameters = [p for p in parameters if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings["weight_decay"]},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        betas = (settings["beta1"], settings["beta2"])
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=settings["eps"], **options)
        self.parameters, self.clip = parameters, settings["clip_norm"]

    def step(self, learning_rate):
        """Returns the norm before clipping; gradients are forgotten."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        if self.clip > 0:
            torch._foreach_mul_(grads, (self.clip / norm).clamp(max=1.0))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


def print_table(header, rows):
    cells = [header] + [[c if isinstance(c, str) else f"{c:.3g}" for c in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        print("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))))
    sys.stdout.flush()
