#!/usr/bin/env python3
"""Holds the drivers to failing where they must: on what is no number, on what did not run, on tensors out of place."""

import math
import pathlib
import tempfile
import types
import unittest
from unittest import mock

import torch
from safetensors.torch import save_file

import hf_parity
import recipe_parity
import safetensors_parity
import throughput
from harness import relative_difference


class FakeTool:
    """Says the gradients and losses that it was made with."""

    def __init__(self, gradients=None, losses=()):
        self.gradients, self.losses = gradients, losses

    def run(self, verb, out, **options):
        out.mkdir()
        save_file(self.gradients, str(out / "model.safetensors"))

    def steps(self, **options):
        return [{"loss": loss} for loss in self.losses]


class RelativeDifference(unittest.TestCase):
    def test_numbers(self):
        self.assertEqual(relative_difference(3.0, 2.0), 0.5)
        self.assertEqual(relative_difference(0.0, 0.0), 0.0)
        self.assertEqual(relative_difference(1.0, 0.0), math.inf)

    def test_tensors(self):
        self.assertEqual(relative_difference(torch.tensor([3.0, 8.0]), torch.tensor([3.0, 4.0])), 0.8)
        self.assertEqual(relative_difference(torch.zeros(3), torch.zeros(1)), math.inf)

    def test_what_is_no_number(self):
        for ours, theirs in ((math.nan, 1.0), (1.0, math.nan), (math.inf, math.inf), (None, 1.0), (math.nan, math.nan)):
            self.assertEqual(relative_difference(ours, theirs), math.inf)
        self.assertEqual(relative_difference(torch.tensor([1.0, math.nan]), torch.ones(2)), math.inf)


class Comparisons(unittest.TestCase):
    def gradients(self, ours, theirs):
        model = torch.nn.Linear(2, 2)
        tool = FakeTool({"weight": torch.full((2, 2), ours), "bias": torch.ones(2)})
        loss = model.weight.sum() * theirs + model.bias.sum()
        with tempfile.TemporaryDirectory() as work, mock.patch.object(hf_parity, "loss_of", lambda *_: loss):
            return hf_parity.compare_gradients(tool, "", model, None, pathlib.Path(work))

    def test_gradients(self):
        self.assertEqual(self.gradients(2.0, 2.0)[0], 0.0)
        self.assertEqual(self.gradients(3.0, 2.0), (0.5, "weight"))
        self.assertEqual(self.gradients(math.nan, 2.0), (math.inf, "weight"))
        self.assertEqual(self.gradients(2.0, math.nan), (math.inf, "weight"))

    def losses(self, ours, theirs):
        model = torch.nn.Linear(2, 2)
        losses = iter(theirs)
        settings = {"steps": [{"learning_rate": 0.0, "sequences": 1}] * len(ours), "clip_norm": 0.0}
        settings |= {"weight_decay": 0.0, "beta1": 0.9, "beta2": 0.9, "eps": 1e-8}
        with mock.patch.object(hf_parity, "loss_of", lambda *_: model.weight.sum() * 0.0 + next(losses)):
            tool, work = FakeTool(losses=ours), pathlib.Path()
            return hf_parity.compare_steps(tool, "", model, settings, [0] * len(ours), work, len(ours))[:2]

    def test_losses(self):
        self.assertEqual(self.losses((2.0, 3.0), (2.0, 2.0)), (0.5, 2))
        self.assertEqual(self.losses((2.0, 2.0), (2.0, math.nan)), (math.inf, 2))
        self.assertEqual(self.losses((2.0, None), (2.0, 2.0)), (math.inf, 2))

    def test_losses_of_the_recipe(self):
        step = {"loss": 2.0, "loss_mtp": 2.0, "loss_balance": 2.0, "grad_norm": 2.0}
        worst = recipe_parity.worst_losses([step, step], [step, step | {"loss_mtp": math.nan}])
        self.assertEqual(worst, {"loss": 0.0, "loss_mtp": math.inf, "loss_balance": 0.0, "grad_norm": 0.0})

    def test_gradients_of_the_recipe(self):
        model = torch.nn.Linear(2, 2)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, math.nan)
        peer = types.SimpleNamespace(model=model, backward=lambda *_: None)
        tool = FakeTool({name: torch.ones_like(p) for name, p in model.named_parameters()})
        with tempfile.TemporaryDirectory() as work:
            worst = recipe_parity.worst_gradient(tool, "", peer, None, None, pathlib.Path(work))
        self.assertEqual(worst[0], math.inf)


class Contestant:
    warm_up = 1

    def __init__(self, mode, name, loss=1.0, error=None):
        self.mode, self.name, self.loss, self.error = mode, name, loss, error

    def step(self, samples, plan):
        if self.error:
            raise self.error
        return (1.0 if self.name == "ours" else 3.0), self.loss


@mock.patch("builtins.print")
class Throughput(unittest.TestCase):
    def good(self, *others):
        """Whether the contest is won; the others are of BF16, while FP32 has all that it needs."""
        all_in = [Contestant("FP32", name) for name in ("ours", "eager", "split")]
        all_in += [Contestant("BF16", "ours"), *others]
        return throughput.report(throughput.measure(all_in, None, None, rounds=1), tokens=1)

    def test_needs_eager_and_one_more(self, _):
        eager, split = Contestant("BF16", "eager"), Contestant("BF16", "split")
        self.assertTrue(self.good(eager, split))
        self.assertTrue(self.good(eager, split, Contestant("BF16", "grouped", error=RuntimeError())))
        self.assertFalse(self.good(eager))
        self.assertFalse(self.good(split, Contestant("BF16", "padded")))
        broken = Contestant("BF16", "eager", error=OSError("x"))
        self.assertFalse(self.good(split, Contestant("BF16", "padded"), broken))
        self.assertFalse(self.good())

    def test_needs_ours(self, _):
        with self.assertRaises(ValueError):
            throughput.measure([Contestant("FP32", "ours", error=ValueError("x"))], None, None, rounds=1)

    def test_needs_one_model(self, _):
        for loss in (1.1, math.nan):
            with self.assertRaises(SystemExit):
                self.good(Contestant("BF16", "eager", loss=loss), Contestant("BF16", "split"))


@mock.patch("builtins.print")
class Safetensors(unittest.TestCase):
    def test_tensors_out_of_place(self, _):
        a, b = torch.arange(4.0), torch.arange(4.0) + 1
        with tempfile.TemporaryDirectory() as work:
            source, same, swapped = (f"{work}/{name}" for name in ("source", "same", "swapped"))
            save_file({"a": a, "b": b}, source)
            save_file({"b": b, "a": a}, same)
            save_file({"a": b, "b": a}, swapped)
            safetensors_parity.compare_copy(same, source)
            safetensors_parity.compare(swapped)
            with self.assertRaisesRegex(AssertionError, "is not that of"):
                safetensors_parity.compare_copy(swapped, source)
            save_file({"a": a}, same)
            with self.assertRaisesRegex(AssertionError, "other names"):
                safetensors_parity.compare_copy(same, source)


if __name__ == "__main__":
    unittest.main()
