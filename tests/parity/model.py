"""The recipe's model in PyTorch, written from the reports: latent attention, experts, MTP modules, balance loss.

Four ways to compute the experts, the same function each: a `loop` over experts that gathers the tokens of each; tokens
sorted by expert once and `split`; `grouped` products over the sorted tokens; and those `padded` to one batched product.
Parameters have the released names, but a layer's experts lie together (harness.stack_experts).
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from harness import read_directory, stack_experts


LATENT_EPS = 1e-6  # as the released code has it, whatever rms_norm_eps says


def linear(rows, cols):
    return nn.Linear(cols, rows, bias=False)


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.width, self.eps = nn.Parameter(torch.ones(width)), width, eps

    def forward(self, x):
        return F.rms_norm(x.float(), (self.width,), self.weight, self.eps).to(x.dtype)


def rotate(x, cos, sin):
    """Neighbouring channels are a pair."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.nope, self.rope = c["num_attention_heads"], c["qk_nope_head_dim"], c["qk_rope_head_dim"]
        self.value, self.rank = c["v_head_dim"], c["kv_lora_rank"]
        width, q_rank = c["hidden_size"], c["q_lora_rank"]
        q_width = self.heads * (self.nope + self.rope)
        self.latent_query = bool(q_rank)
        if self.latent_query:
            self.q_a_proj, self.q_a_layernorm = linear(q_rank, width), Norm(q_rank, LATENT_EPS)
            self.q_b_proj = linear(q_width, q_rank)
        else:
            self.q_proj = linear(q_width, width)
        self.kv_a_proj_with_mqa, self.kv_a_layernorm = linear(self.rank + self.rope, width), Norm(self.rank, LATENT_EPS)
        self.kv_b_proj = linear(self.heads * (self.nope + self.value), self.rank)
        self.o_proj = linear(width, self.heads * self.value)

    def forward(self, x, cos, sin):
        b, s, _ = x.shape
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if self.latent_query else self.q_proj(x)
        q_nope, q_rope = q.view(b, s, self.heads, -1).transpose(1, 2).split([self.nope, self.rope], dim=-1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([self.rank, self.rope], dim=-1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent)).view(b, s, self.heads, -1).transpose(1, 2)
        k_nope, v = kv.split([self.nope, self.value], dim=-1)
        k_rope = rotate(k_rope[:, None], cos, sin).expand(-1, self.heads, -1, -1)
        q = torch.cat((q_nope, rotate(q_rope, cos, sin)), dim=-1)
        k = torch.cat((k_nope, k_rope), dim=-1)
        # Values padded to the keys' width: the fused attention takes one width only.
        v = F.pad(v, (0, k.shape[-1] - self.value))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)[..., : self.value]
        return self.o_proj(out.transpose(1, 2).reshape(b, s, -1))


class Mlp(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = linear(inner, width), linear(inner, width), linear(width, inner)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.experts, self.chosen = c["n_routed_experts"], c["num_experts_per_tok"]
        self.groups, self.kept = c["n_group"], c["topk_group"]
        self.renormalize, self.scaling = c["norm_topk_prob"], c["routed_scaling_factor"]
        self.weight = nn.Parameter(torch.empty(self.experts, c["hidden_size"]))
        self.register_buffer("e_score_correction_bias", torch.zeros(self.experts))

    def forward(self, x):
        """x [T, D] to experts [T, K], their weights [T, K], affinities [T, E]."""
        with torch.autocast("cpu", enabled=False):
            scores = F.linear(x.float(), self.weight).sigmoid()
        with torch.no_grad():
            biased = scores + self.e_score_correction_bias
            if self.kept < self.groups:
                by_group = biased.view(-1, self.groups, self.experts // self.groups)
                best = by_group.topk(2, dim=-1).values.sum(-1).topk(self.kept, dim=-1).indices
                keep = torch.zeros(by_group.shape[:2], dtype=torch.bool).scatter_(1, best, True)
                biased = by_group.masked_fill(~keep[..., None], -math.inf).flatten(1)
            experts = biased.topk(self.chosen, dim=-1).indices
        weights = scores.gather(1, experts)
        if self.renormalize:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return experts, weights * self.scaling, scores

    def balance_loss(self, scores, sequences):
        """Sum over sequences of sum_i f_i P_i; f counts the choice that affinities alone would make."""
        scores = scores.view(sequences, -1, self.experts)
        with torch.no_grad():
            best = scores.topk(self.chosen, dim=-1).indices
            f = F.one_hot(best, self.experts).sum((1, 2)) * (self.experts / (self.chosen * scores.shape[1]))
        p = (scores / scores.sum(-1, keepdim=True)).mean(1)
        return (f * p).sum()


class Experts(nn.Module):
    def __init__(self, c, way):
        super().__init__()
        count, width, inner = c["n_routed_experts"], c["hidden_size"], c["moe_intermediate_size"]
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * inner, width))
        self.down_proj = nn.Parameter(torch.empty(count, width, inner))
        ways = {"loop": self.loop, "split": self.split, "grouped": self.grouped, "padded": self.padded}
        self.forward = ways[way]

    def loop(self, x, experts, weights):
        out = torch.zeros_like(x)
        for e in range(len(self.gate_up_proj)):
            token, place = torch.where(experts == e)
            gate, up = F.linear(x[token], self.gate_up_proj[e]).chunk(2, dim=-1)
            y = F.linear(F.silu(gate) * up * weights[token, place, None].to(x.dtype), self.down_proj[e])
            out.index_add_(0, token, y.to(out.dtype))
        return out

    def sort(self, experts):
        """Assignments in the order of their experts, the token of each, and how many each expert has."""
        flat = experts.flatten()
        order = flat.argsort(stable=True)
        counts = torch.zeros(len(self.gate_up_proj), dtype=flat.dtype).scatter_add_(0, flat, torch.ones_like(flat))
        return order, order // experts.shape[1], counts

    def split(self, x, experts, weights):
        order, token, counts = self.sort(experts)
        rows = x[token].split(counts.tolist())
        h = torch.cat([F.linear(r, w) for r, w in zip(rows, self.gate_up_proj.unbind())])
        gate, up = h.chunk(2, dim=-1)
        h = F.silu(gate) * up * weights.flatten()[order][:, None].to(h.dtype)
        y = torch.cat([F.linear(r, w) for r, w in zip(h.split(counts.tolist()), self.down_proj.unbind())])
        return torch.zeros_like(x).index_add_(0, token, y.to(x.dtype))

    def grouped(self, x, experts, weights):
        order, token, counts = self.sort(experts)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        ends = counts.cumsum(0).to(torch.int32)
        h = F.grouped_mm(x[token].to(dtype), self.gate_up_proj.to(dtype).transpose(-1, -2), offs=ends)
        gate, up = h.chunk(2, dim=-1)
        h = F.silu(gate) * up * weights.flatten()[order][:, None].to(dtype)
        y = F.grouped_mm(h, self.down_proj.to(dtype).transpose(-1, -2), offs=ends)
        return torch.zeros_like(x).index_add_(0, token, y.to(x.dtype))

    def padded(self, x, experts, weights):
        order, token, counts = self.sort(experts)
        count = len(counts)
        capacity = -(-int(counts.max()) // 64) * 64  # few different shapes, for those who compile
        begins = counts.cumsum(0) - counts
        expert = experts.flatten()[order]
        place = expert * capacity + torch.arange(len(order)) - begins[expert]
        rows = torch.zeros(count * capacity, x.shape[1], dtype=x.dtype).index_copy(0, place, x[token])
        scale = torch.zeros(count * capacity, dtype=weights.dtype).index_copy(0, place, weights.flatten()[order])
        h = torch.bmm(rows.view(count, capacity, -1), self.gate_up_proj.transpose(-1, -2))
        gate, up = h.chunk(2, dim=-1)
        h = F.silu(gate) * up * scale.view(count, capacity, 1).to(h.dtype)
        y = torch.bmm(h, self.down_proj.transpose(-1, -2)).flatten(0, 1)[place]
        return torch.zeros_like(x).index_add_(0, token, y.to(x.dtype))


class Moe(nn.Module):
    def __init__(self, c, way, balance):
        super().__init__()
        self.gate, self.experts, self.balance = Router(c), Experts(c, way), balance
        shared = c["n_shared_experts"] * c["moe_intermediate_size"]
        self.shared_experts = Mlp(c["hidden_size"], shared) if shared else None

    def forward(self, x):
        """The output, the experts of each token, and the balance loss, not scaled."""
        flat = x.flatten(0, 1)
        experts, weights, scores = self.gate(flat)
        out = self.experts(flat, experts, weights).view_as(x)
        if self.shared_experts is not None:
            out = out + self.shared_experts(x)
        return out, experts, self.gate.balance_loss(scores, x.shape[0]) if self.balance else torch.zeros(())


class Block(nn.Module):
    def __init__(self, c, dense, way, balance):
        super().__init__()
        width, eps = c["hidden_size"], c["rms_norm_eps"]
        self.input_layernorm, self.post_attention_layernorm = Norm(width, eps), Norm(width, eps)
        self.self_attn = Attention(c)
        self.mlp = Mlp(width, c["intermediate_size"]) if dense else Moe(c, way, balance)
        self.dense = dense

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        y = self.mlp(self.post_attention_layernorm(x))
        return (x + y, None, None) if self.dense else (x + y[0], y[1], y[2])


class MtpBlock(Block):
    """A module of multi-token prediction: joins the hidden state with a later token, then a block and a norm."""

    def __init__(self, c, way, balance):
        super().__init__(c, c["first_k_dense_replace"] >= c["num_hidden_layers"], way, balance)
        width, eps = c["hidden_size"], c["rms_norm_eps"]
        self.enorm, self.hnorm, self.eh_proj = Norm(width, eps), Norm(width, eps), linear(width, 2 * width)
        self.shared_head = nn.Module()
        self.shared_head.norm = Norm(width, eps)

    def join(self, embedded, hidden):
        return self.eh_proj(torch.cat((self.enorm(embedded), self.hnorm(hidden)), dim=-1))


class Model(nn.Module):
    """`c` is a config.json of ours without YaRN; `way`: how experts are computed; `balance`: whether that loss is."""

    def __init__(self, c, way, sequence_length, balance=True):
        super().__init__()
        if c.get("rope_scaling"):
            raise ValueError("this model has plain RoPE only")
        width, self.layers, modules = c["hidden_size"], c["num_hidden_layers"], c.get("num_nextn_predict_layers", 0)
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c["vocab_size"], width)
        blocks = [Block(c, i < c["first_k_dense_replace"], way, balance) for i in range(self.layers)]
        self.model.layers = nn.ModuleList(blocks + [MtpBlock(c, way, balance) for _ in range(modules)])
        self.model.norm = Norm(width, c["rms_norm_eps"])
        self.lm_head = linear(c["vocab_size"], width)
        pairs = torch.arange(0, c["qk_rope_head_dim"], 2, dtype=torch.float64) / c["qk_rope_head_dim"]
        angles = torch.arange(sequence_length, dtype=torch.float64)[:, None] * c["rope_theta"] ** -pairs
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, rows, targets, mtp=True):
        """rows [B, D + S] ids; targets [B, D + S], -100 where there is none.

        Returns the sum over tokens of the main loss, that of each MTP module, the sum over layers and sequences of the
        balance loss, and the experts that tokens chose in each layer that has experts.
        """
        length = self.cos.shape[0]
        x = self.model.embed_tokens(rows[:, :length])
        chosen, balance, losses = [], torch.zeros(()), []
        for i, layer in enumerate(self.model.layers):
            module = i - self.layers
            if module == 0:
                losses.append(self.loss(self.model.norm(x), targets[:, :length]))
                if not mtp:
                    return losses[0], [], balance, chosen
            if module >= 0:
                x = layer.join(self.model.embed_tokens(rows[:, module + 1 : module + 1 + length]), x)
            x, experts, layer_balance = layer(x, self.cos, self.sin)
            if experts is not None:
                chosen.append(experts)
                balance = balance + layer_balance
            if module >= 0:
                losses.append(self.loss(layer.shared_head.norm(x), targets[:, module + 1 : module + 1 + length]))
        if not losses:
            losses.append(self.loss(self.model.norm(x), targets[:, :length]))
        return losses[0], losses[1:], balance, chosen

    def loss(self, x, targets):
        return F.cross_entropy(self.lm_head(x).flatten(0, 1).float(), targets.flatten(), reduction="sum")

    def load(self, directory):
        """Weights from a directory of ours; the MTP modules' copies of embedding and head are the main model's."""
        tensors = stack_experts(read_directory(directory))
        copies = ("embed_tokens.weight", "shared_head.head.weight")
        mine = {n: v for n, v in tensors.items() if not (n.startswith("model.layers.") and n.endswith(copies))}
        self.load_state_dict(mine)
        return self

    @torch.no_grad()
    def update_biases(self, counts, speed):
        """The rule that has no loss: towards experts below the mean, away from those above."""
        layers = [layer for layer in self.model.layers if not layer.dense]
        for layer, count in zip(layers, counts):
            layer.mlp.gate.e_score_correction_bias += speed * torch.sign(count.sum() - len(count) * count)


def ids_and_targets(samples, eos, depth):
    """From rows of S + 1 + D ids (-1: none) to what Model reads."""
    samples = torch.as_tensor(samples).long()
    rows = torch.where(samples < 0, eos, samples)[:, : samples.shape[1] - 1]
    targets = torch.where(samples < 0, -100, samples)[:, 1:]
    return rows, targets
