"""Writes gguf_blocks.bin: two random blocks of each type, and their weights by the gguf package.

For each type: its number, the bytes of a block and the weights of a block, as three uint32; two
blocks; their weights as float32. All little-endian. `pip install gguf==0.19.0 numpy`
"""

import struct
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

# Where the half-precision scales of a block are: random bits could be infinite.
HALVES = {
    Type.F16: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2],
    Type.Q8_0: [0], Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2],
    Type.Q6_K: [208], Type.IQ4_NL: [0],
}

random = np.random.default_rng(22)
with open(Path(__file__).with_name("gguf_blocks.bin"), "wb") as out:
    for kind in [Type.F32, Type.BF16, *HALVES]:
        weights, size = GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (2, size), np.uint8)
        for block in blocks:
            for at in HALVES.get(kind, []):
                half = np.float16(random.normal(0, 0.01))
                block[at : at + 2] = np.frombuffer(half.tobytes(), np.uint8)
            if kind in (Type.F32, Type.BF16):
                # A small exponent.
                block[-1] = 0x3C
        expected = dequantize(blocks.reshape(-1), kind).astype("<f4")
        assert np.isfinite(expected).all() and expected.size == 2 * weights
        out.write(struct.pack("<3I", kind, size, weights) + blocks.tobytes() + expected.tobytes())
