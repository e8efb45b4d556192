"""The decoder in PyTorch, as the ONNX graph has it: a Llama with grouped queries."""

import math
from functools import partial

import torch
from torch import nn
from torch.nn import functional

HEAD = 64
"""The size of a head."""

EPSILON = 1e-5
LINEARS = ("attn.qkv_proj", "attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


class Matrix(nn.Module):
    """A matrix [out, in] that is frozen, or learned itself."""

    def __init__(self, weight, learned):
        super().__init__()
        if learned:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight, persistent=False)

    def forward(self, x):
        return functional.linear(x, self.weight)

    def merged(self):
        return self.weight.detach()


class Adapted(Matrix):
    """A frozen matrix, and beside it a low-rank change that is learned (LoRA, arXiv 2106.09685)."""

    def __init__(self, weight, rank):
        super().__init__(weight, learned=False)
        self.down = nn.Parameter(torch.empty(rank, weight.shape[1]))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, x):
        return super().forward(x) + functional.linear(functional.linear(x, self.down), self.up)

    def merged(self):
        return self.weight + self.up @ self.down


class Layer(nn.Module):
    """A layer of the decoder; what of it is learned, `matrix` says: it makes a `Matrix` of each weight."""

    def __init__(self, weights, name, matrix):
        super().__init__()
        for norm in ("input_layernorm", "post_attention_layernorm"):
            self.register_buffer(norm, weights[f"{name}.{norm}.weight"], persistent=False)
        matrices = {linear: weights[f"{name}.{linear}.MatMul.weight"] for linear in LINEARS}
        # A module's name has no dot.
        self.linears = nn.ModuleDict(
            {linear.replace(".", "_"): matrix(weight) for linear, weight in matrices.items()}
        )
        self.queries = self["attn.o_proj"].weight.shape[1] // HEAD
        self.keys = (self["attn.qkv_proj"].weight.shape[0] // HEAD - self.queries) // 2

    def __getitem__(self, linear):
        return self.linears[linear.replace(".", "_")]

    def forward(self, x, cos, sin, visible):
        normed = functional.rms_norm(x, x.shape[-1:], self.input_layernorm, EPSILON)
        heads = self["attn.qkv_proj"](normed).unflatten(-1, (-1, HEAD)).transpose(1, 2)
        query, key, value = heads.split((self.queries, self.keys, self.keys), dim=1)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible, enable_gqa=True)
        x = x + self["attn.o_proj"](seen.transpose(1, 2).flatten(2))
        normed = functional.rms_norm(x, x.shape[-1:], self.post_attention_layernorm, EPSILON)
        gate, up = self["mlp.gate_proj"](normed), self["mlp.up_proj"](normed)
        return x + self["mlp.down_proj"](functional.silu(gate) * up)


class Decoder(nn.Module):
    """Logits of token ids [batch, length].

    With `rank` a change of that rank is learned of each matrix, with 0 the matrix itself; of the upper
    `learned` layers, or of all. With all the embeddings of `markers` are learned too: nothing was known
    of them before. With `bf16` matrices are multiplied in bfloat16, which rounds; sums, norms and what is
    learned stay in float32.
    """

    def __init__(self, weights, rank=0, learned=None, markers=(), bf16=False):
        super().__init__()
        self.bf16 = bf16
        weights = {name: torch.from_numpy(values) for name, values in weights.items()}
        for name in ("cos_cache", "sin_cache"):
            self.register_buffer(name, weights[name], persistent=False)
        self.register_buffer("embedding", weights["lm_head.MatMul.weight"], persistent=False)
        count = sum(name.endswith("o_proj.MatMul.weight") for name in weights)
        learned = count if learned is None else learned
        self.markers = torch.tensor(markers, dtype=torch.long)
        self.marked = nn.Parameter(self.embedding[self.markers].clone(), requires_grad=learned == count)
        makes = [partial(Matrix, learned=False)] * (count - learned)
        makes += [partial(Adapted, rank=rank) if rank else partial(Matrix, learned=True)] * learned
        self.layers = nn.ModuleList(Layer(weights, f"model.layers.{n}", make) for n, make in enumerate(makes))
        final = f"model.layers.{count}.final_norm_layernorm.weight"
        self.register_buffer("norm", weights[final], persistent=False)

    def forward(self, ids, positions, visible, rows=...):
        """Of ids at `positions` [batch, length], each of which sees those that are `visible` to it [batch,
        length, length], the logits [rows, vocabulary] at the rows that a mask [batch, length] names."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self._logits(ids, positions, visible, rows).float()

    def _logits(self, ids, positions, visible, rows):
        x = functional.embedding(ids, self.embedding)
        for id, embedding in zip(self.markers, self.marked):
            x = torch.where((ids == id).unsqueeze(-1), embedding, x)
        cos, sin = self.cos_cache[positions].unsqueeze(1), self.sin_cache[positions].unsqueeze(1)
        for layer in self.layers:
            x = layer(x, cos, sin, visible.unsqueeze(1))
        x = functional.rms_norm(x[rows], x.shape[-1:], self.norm, EPSILON)
        logits = functional.linear(x, self.embedding)
        return logits.index_copy_(-1, self.markers, functional.linear(x, self.marked))

    @torch.no_grad()
    def merged(self):
        """What was learned, as the weights of a graph: those that were not are not among them."""
        weights = {}
        if self.marked.requires_grad:
            weights["lm_head.MatMul.weight"] = self.embedding.index_copy(0, self.markers, self.marked).numpy()
        for number, layer in enumerate(self.layers):
            if any(True for _ in layer.parameters()):
                for linear in LINEARS:
                    weights[f"model.layers.{number}.{linear}.MatMul.weight"] = layer[linear].merged().numpy()
        return weights


def rotate(heads, cos, sin):
    """Rotary positions, halves rotated against each other: `heads` is [batch, heads, length, HEAD]."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
