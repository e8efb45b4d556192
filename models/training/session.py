"""A model folder in ONNX Runtime, as its users have it."""

import re

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from decoder import HEAD


class Session:
    """A model folder that reads and writes tokens."""

    def __init__(self, folder):
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        self.past = [value for value in self.session.get_inputs() if value.name.startswith("past_key_values")]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.order = re.search(r'order = "(\w+)"', (folder / "model.toml").read_text())[1]
        # The texts of the tokens; bytes are letters of an alphabet of their own here.
        self.letters = np.array([self.tokenizer.id_to_token(id) for id in range(self.tokenizer.get_vocab_size())])
        self.markers = sorted(self.tokenizer.get_added_tokens_decoder())

    def write(self, ids, end, choose, most):
        """At most so many tokens behind `ids`, up to the token `end`, which is not among them. `choose` is given
        the logits [vocabulary] and what is written so far, and answers with a token, or None to stop."""
        past = [np.zeros((1, value.shape[1], 0, HEAD), np.float32) for value in self.past]
        masked = [marker for marker in self.markers if marker != end]
        written = []
        while len(written) < most:
            length = past[0].shape[2] + len(ids)
            inputs = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, length), np.int64)}
            inputs |= {"num_logits_to_keep": np.array(1)} | {value.name: of for value, of in zip(self.past, past)}
            logits, *past = self.session.run(None, inputs)
            logits = logits[0, 0]
            logits[masked] = -np.inf
            id = choose(logits, written)
            if id is None or id == end:
                break
            written.append(id)
            ids = [id]
        return written
