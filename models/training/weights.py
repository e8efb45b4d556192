"""The weights of a model folder: read from its ONNX graph, and written into a copy of it.

The graph itself stays as it is, so what is written runs wherever what was read runs.
"""

import hashlib
import pathlib
import shutil

import numpy as np
import onnx

BLOCK = 64
"""Weights that share a scale."""

ZERO = 128
"""What stands for 0 in an 8-bit block (MatMulNBits and GatherBlockQuantized, without zero points)."""

QUANTISED, SCALE = "_Q8G64", "_scale"
"""The ends of the names of a quantised matrix and its scales."""


class Graph:
    """An ONNX graph with its weights beside it, as the loader of Interline wants them."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        graph = onnx.load(self.folder / "model.onnx", load_external_data=False).graph
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}

    def _map(self, name, folder, mode):
        tensor = self.tensors[name]
        place = {entry.key: entry.value for entry in tensor.external_data}
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        file = folder / place["location"]
        return np.memmap(file, kind, mode, int(place["offset"]), tuple(tensor.dims))

    def read(self):
        """All weights as float32 by the name of their matrix, [rows, columns] or [columns]."""
        weights = {}
        for name, tensor in self.tensors.items():
            if name.endswith(SCALE) or not tensor.external_data:
                continue
            stored = self._map(name, self.folder, "r")
            if name.endswith(QUANTISED):
                name = name.removesuffix(QUANTISED)
                scales = np.array(self._map(name + SCALE, self.folder, "r"))
                blocks = (stored.astype(np.float32) - ZERO) * scales.reshape(*stored.shape[:2], 1)
                weights[name] = blocks.reshape(len(stored), -1)
            else:
                weights[name] = np.array(stored)
        return weights

    def write(self, weights, folder):
        """Copies the model's folder, but for the page about what it was, and writes these quantised matrices
        into the copy."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("README.md"))
        for name, values in weights.items():
            blocks, scales = quantise(values)
            self._map(name + QUANTISED, folder, "r+")[:] = blocks
            stored = self._map(name + SCALE, folder, "r+")
            stored[:] = scales.reshape(stored.shape)


def write_sums(folder):
    """Writes SHA256SUMS of what is in a folder."""
    files = sorted(file for file in folder.iterdir() if file.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / "SHA256SUMS").write_text("".join(sums))


def quantise(values):
    """Blocks of 8-bit weights [rows, blocks, BLOCK] and their scales [rows, blocks]: to the nearest step."""
    blocks = np.asarray(values, np.float32).reshape(len(values), -1, BLOCK)
    scales = np.maximum(np.abs(blocks).max(-1) / 127, np.finfo(np.float32).tiny)
    return (np.rint(blocks / scales[..., None]) + ZERO).astype(np.uint8), scales
