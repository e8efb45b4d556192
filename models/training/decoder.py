"""The decoder in PyTorch, as the ONNX graph has it: a Llama with grouped queries."""

import math

import torch
from torch import nn
from torch.nn import functional

HEAD = 64
"""The size of a head."""

EPSILON = 1e-5
LINEARS = ("attn.qkv_proj", "attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


class Adapted(nn.Module):
    """A frozen matrix [out, in], and beside it a low-rank change that is learned (LoRA, arXiv 2106.09685)."""

    def __init__(self, weight, rank):
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.down = nn.Parameter(torch.empty(rank, weight.shape[1]))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, x):
        return functional.linear(x, self.weight) + functional.linear(functional.linear(x, self.down), self.up)

    def merged(self):
        return self.weight + self.up @ self.down


class Layer(nn.Module):
    def __init__(self, weights, name, rank):
        super().__init__()
        for norm in ("input_layernorm", "post_attention_layernorm"):
            self.register_buffer(norm, weights[f"{name}.{norm}.weight"], persistent=False)
        matrices = {linear: weights[f"{name}.{linear}.MatMul.weight"] for linear in LINEARS}
        # A module's name has no dot.
        self.linears = nn.ModuleDict(
            {linear.replace(".", "_"): Adapted(weight, rank) for linear, weight in matrices.items()}
        )
        self.queries = self["attn.o_proj"].weight.shape[1] // HEAD
        self.keys = (self["attn.qkv_proj"].weight.shape[0] // HEAD - self.queries) // 2

    def __getitem__(self, linear):
        return self.linears[linear.replace(".", "_")]

    def forward(self, x, cos, sin):
        normed = functional.rms_norm(x, x.shape[-1:], self.input_layernorm, EPSILON)
        heads = self["attn.qkv_proj"](normed).unflatten(-1, (-1, HEAD)).transpose(1, 2)
        query, key, value = heads.split((self.queries, self.keys, self.keys), dim=1)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        x = x + self["attn.o_proj"](seen.transpose(1, 2).flatten(2))
        normed = functional.rms_norm(x, x.shape[-1:], self.post_attention_layernorm, EPSILON)
        gate, up = self["mlp.gate_proj"](normed), self["mlp.up_proj"](normed)
        return x + self["mlp.down_proj"](functional.silu(gate) * up)


class Decoder(nn.Module):
    """Logits [batch, length, vocabulary] of token ids [batch, length].

    `markers` are the ids whose embeddings are learned too: nothing was known of them before.
    """

    def __init__(self, weights, rank, markers=()):
        super().__init__()
        weights = {name: torch.from_numpy(values) for name, values in weights.items()}
        for name in ("cos_cache", "sin_cache"):
            self.register_buffer(name, weights[name], persistent=False)
        self.register_buffer("embedding", weights["lm_head.MatMul.weight"], persistent=False)
        self.markers = list(markers)
        self.marked = nn.Parameter(self.embedding[self.markers].clone())
        count = sum(name.endswith("o_proj.MatMul.weight") for name in weights)
        self.layers = nn.ModuleList(Layer(weights, f"model.layers.{n}", rank) for n in range(count))
        final = f"model.layers.{count}.final_norm_layernorm.weight"
        self.register_buffer("norm", weights[final], persistent=False)

    def embeddings(self):
        if not self.markers:
            return self.embedding
        return self.embedding.index_copy(0, torch.tensor(self.markers), self.marked)

    def forward(self, ids):
        embeddings = self.embeddings()
        x = functional.embedding(ids, embeddings)
        cos, sin = self.cos_cache[: ids.shape[1]], self.sin_cache[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return functional.linear(functional.rms_norm(x, x.shape[-1:], self.norm, EPSILON), embeddings)

    @torch.no_grad()
    def merged(self):
        """What was learned, as the weights of a graph."""
        weights = {"lm_head.MatMul.weight": self.embeddings().numpy()}
        for number, layer in enumerate(self.layers):
            for linear in LINEARS:
                weights[f"model.layers.{number}.{linear}.MatMul.weight"] = layer[linear].merged().numpy()
        return weights


def rotate(heads, cos, sin):
    """Rotary positions, halves rotated against each other: `heads` is [batch, heads, length, HEAD]."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
