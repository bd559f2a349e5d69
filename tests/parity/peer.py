"""PyTorch's side of a whole training run: the recipe's model, all losses, the optimizer, the routing biases."""

import json
import pathlib

import numpy
import torch

from harness import AdamW
from model import Model, ids_and_targets


class Peer:
    """PyTorch's side: the model, its optimizer, and the batches of a run."""

    def __init__(self, directory, settings, precision):
        config = json.loads((pathlib.Path(directory) / "config.json").read_text())
        self.model = Model(config, "split", settings["sequence_length"]).load(directory)
        self.settings, self.optimizer = settings, AdamW(self.model.parameters(), settings, fused=True)
        self.autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "BF16")

    def targets(self, samples):
        return ids_and_targets(samples, self.settings["eos_id"], self.settings["mtp_depth"])

    def backward(self, samples, plan):
        """Gradients of one step over all samples. Its losses a token as ours are defined, and the experts' counts."""
        tokens = len(samples) * self.settings["sequence_length"]
        depth, counts = self.settings["mtp_depth"], None
        losses = dict.fromkeys(("loss", "loss_mtp", "loss_balance"), 0.0)
        for micro in numpy.split(samples, len(samples) // self.settings["micro_batch"]):
            with self.autocast:
                main, modules, balance, chosen = self.model(*self.targets(micro))
            parts = {"loss": main / tokens, "loss_balance": plan["balance_alpha"] / len(samples) * balance}
            total = parts["loss"] + parts["loss_balance"]
            if depth:
                parts["loss_mtp"] = sum(modules) / (depth * tokens)
                total = total + plan["mtp_weight"] * parts["loss_mtp"]
            total.backward()
            losses.update({name: losses[name] + part.item() for name, part in parts.items()})
            experts = self.model.model.layers[-1].mlp.gate.experts if chosen else 0
            new = [torch.bincount(c.flatten(), minlength=experts) for c in chosen]
            counts = new if counts is None else [a + b for a, b in zip(counts, new)]
        return losses, counts

    def step(self, samples, plan):
        """One optimizer step; its losses before it, and the gradient's norm."""
        losses, counts = self.backward(samples, plan)
        norm = self.optimizer.step(plan["learning_rate"])
        self.model.update_biases(counts, plan["bias_speed"])
        return losses | {"grad_norm": norm.item()}

    @torch.no_grad()
    def validate(self, samples):
        total, targets = 0.0, 0
        for micro in numpy.array_split(samples, -(-len(samples) // self.settings["micro_batch"])):
            rows, wanted = self.targets(micro)
            with self.autocast:
                total += self.model(rows, wanted, mtp=False)[0].item()
            targets += int((wanted[:, : self.settings["sequence_length"]] >= 0).sum())
        return total / targets
