"""A model as a GGUF file of some megabytes, which writes the word `tiny` wherever it is asked.

Its layers add nothing, each token is a direction of its own, and the output maps each one to the
token that follows it. So the next token depends on the last one alone.
"""

import array
import struct

WORD = "tiny"
# Wide enough for a direction for each of the tokens, and a multiple of what the importer needs.
WIDTH = 288
MARKERS = [("<|endoftext|>", 3), ("<|fim_prefix|>", 3), ("<|fim_suffix|>", 3), ("<|fim_middle|>", 3)]
NORMAL = 1


def byte_tokens():
    """The characters that stand for the 256 bytes in a byte-level vocabulary."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def values(kind, all_values, write):
    return struct.pack("<IIQ", 9, kind, len(all_values)) + b"".join(map(write, all_values))


def u32(value):
    return struct.pack("<II", 4, value)


def string(value):
    return struct.pack("<I", 8) + text(value)


def metadata():
    tokens = [(token, NORMAL) for token in byte_tokens()] + MARKERS
    return {
        "general.architecture": string("llama"),
        "general.name": string("Tiny"),
        "llama.block_count": u32(1),
        "llama.context_length": u32(2048),
        "llama.embedding_length": u32(WIDTH),
        "llama.feed_forward_length": u32(WIDTH),
        "llama.attention.head_count": u32(9),
        "llama.attention.head_count_kv": u32(9),
        "llama.attention.layer_norm_rms_epsilon": struct.pack("<If", 6, 1e-5),
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.pre": string("qwen2"),
        "tokenizer.ggml.tokens": values(8, tokens, lambda token: text(token[0])),
        "tokenizer.ggml.token_type": values(5, tokens, lambda token: struct.pack("<i", token[1])),
        "tokenizer.ggml.merges": values(8, [], text),
        "tokenizer.ggml.eos_token_id": u32(256),
    }


def tensors():
    """Names, dimensions with the innermost one first, and weights."""
    count = 256 + len(MARKERS)
    end = 256
    chain = WORD.encode()
    follower = dict(zip(chain, [*chain[1:], end]))
    embedding = array.array("f", bytes(4 * count * WIDTH))
    output = array.array("f", bytes(4 * count * WIDTH))
    for token in range(count):
        embedding[token * WIDTH + token] = 1.0
        output[follower.get(token, chain[0]) * WIDTH + token] = 1.0
    ones = array.array("f", [1.0] * WIDTH)
    nothing = array.array("f", bytes(4 * WIDTH * WIDTH))
    yield "token_embd.weight", (WIDTH, count), embedding
    yield "output.weight", (WIDTH, count), output
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        yield f"{name}.weight", (WIDTH,), ones
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        yield f"blk.0.{name}.weight", (WIDTH, WIDTH), nothing


def gguf():
    """The bytes of the file."""
    keys, all_tensors = metadata(), list(tensors())
    header = b"GGUF" + struct.pack("<IQQ", 3, len(all_tensors), len(keys))
    header += b"".join(text(key) + value for key, value in keys.items())
    data = b""
    for name, dimensions, weights in all_tensors:
        shape = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        header += text(name) + shape + struct.pack("<IQ", 0, len(data))
        data += weights.tobytes() + bytes(-4 * len(weights) % 32)
    return header + bytes(-len(header) % 32) + data
