#!/usr/bin/env python3
"""Writes tests/parity/golden: two small models as Hugging Face saves them, and what its implementation computes.

usage: make_golden.py BUILD
BUILD is the build directory, whose parity_tool says how golden/train.textproto trains. The models' weights come from a
seed; nothing of ours computes here, so that hf_golden_test compares two programs. Run it again only to change the
models.
"""

import json
import os
import pathlib
import shutil
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import save_file
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from harness import HERE, AdamW, Tool, make_samples
from hf_parity import loss_of

COMMON = dict(
    num_nextn_predict_layers=0,
    num_key_value_heads=2,
    num_attention_heads=2,
    rms_norm_eps=1e-6,
    tie_word_embeddings=False,
    max_position_embeddings=64,
)
MODELS = {
    "latent_yarn": dict(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        first_k_dense_replace=1,
        intermediate_size=24,
        q_lora_rank=10,
        kv_lora_rank=8,
        qk_nope_head_dim=6,
        qk_rope_head_dim=8,
        v_head_dim=4,
        n_routed_experts=8,
        n_shared_experts=1,
        num_experts_per_tok=3,
        moe_intermediate_size=8,
        n_group=4,
        topk_group=2,
        norm_topk_prob=True,
        routed_scaling_factor=2.5,
        rope_parameters=dict(
            rope_type="yarn",
            rope_theta=10000.0,
            factor=4.0,
            original_max_position_embeddings=16,
            beta_fast=4.0,
            beta_slow=0.5,
            mscale=1.0,
            mscale_all_dim=0.707,
        ),
    ),
    "plain": dict(
        vocab_size=33,
        hidden_size=12,
        num_hidden_layers=2,
        first_k_dense_replace=0,
        intermediate_size=8,
        q_lora_rank=None,
        kv_lora_rank=6,
        qk_nope_head_dim=4,
        qk_rope_head_dim=4,
        v_head_dim=8,
        n_routed_experts=6,
        n_shared_experts=2,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        n_group=1,
        topk_group=1,
        norm_topk_prob=False,
        routed_scaling_factor=1.0,
        rope_parameters=dict(rope_type="default", rope_theta=5000.0),
    ),
}


def make_model(options, seed):
    config = DeepseekV3Config(**COMMON, **options)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = DeepseekV3ForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in list(model.named_parameters()) + list(model.named_buffers()):
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("e_score_correction_bias"):
                value.copy_(0.05 * noise)
            elif "inv_freq" not in name:
                value.copy_(0.15 * noise if value.dim() > 1 else 1 + 0.2 * noise)
    return model.train()


def released_names(tensors):
    """A layer's experts one by one, as the released files have them."""
    result = {}
    for name, value in tensors.items():
        head, found, part = name.partition(".experts.")
        for expert in range(value.shape[0] if found else 0):
            if part == "gate_up_proj":
                gate, up = value[expert].chunk(2)
                result[f"{head}.experts.{expert}.gate_proj.weight"] = gate.contiguous()
                result[f"{head}.experts.{expert}.up_proj.weight"] = up.contiguous()
            else:
                result[f"{head}.experts.{expert}.down_proj.weight"] = value[expert].contiguous()
        if not found:
            result[name] = value.contiguous()
    return result


def write(build, name, options, seed):
    directory = HERE / "golden" / name
    shutil.rmtree(directory, ignore_errors=True)
    model = make_model(options, seed)
    model.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    settings = Tool(build, [HERE / "golden" / "train.textproto"]).settings(hf=directory)
    samples = make_samples(settings, 40, seed)
    with torch.no_grad():
        micro = torch.from_numpy(samples[: settings["micro_batch"], :-1]).long()
        tensors = {"logits": model(input_ids=micro, use_cache=False).logits.contiguous()}
    batch = settings["steps"][0]["sequences"]
    loss_of(model, samples[:batch]).backward()
    tensors.update(released_names({n: p.grad.clone() for n, p in model.named_parameters()}))
    model.zero_grad()
    save_file(tensors, str(directory / "golden.safetensors"))
    optimizer, losses = AdamW(model.parameters(), settings), []
    for i, step in enumerate(settings["steps"]):
        first = i * batch % len(samples)
        loss = loss_of(model, samples[first : first + batch])
        loss.backward()
        optimizer.step(step["learning_rate"])
        losses.append(loss.item())
    golden = {"losses": losses, "samples": samples.flatten().tolist()}
    (directory / "golden.json").write_text(json.dumps(golden) + "\n")
    print(name, sum(p.stat().st_size for p in directory.iterdir()), "bytes, losses", losses[0], "to", losses[-1])


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for seed, (name, options) in enumerate(MODELS.items()):
        write(pathlib.Path(sys.argv[1]), name, options, seed + 1)


if __name__ == "__main__":
    main()
