"""Asks a model about the code of a corpus, and writes down what it answers: `python answers.py FOLDER CORPUS`.

With a share of these, `train.py --answers`, a run keeps what FOLDER could answer, which is the model before it
was taught to fill holes.
"""

import argparse
import json
import pathlib
import random

import numpy as np

from session import Session
from train import read

TEMPERATURE = 0.5
"""At 1 a small model says too much that is neither code nor sense."""

NEW = 192
"""Tokens of an answer, at most. One that is longer is left out: without its end it would teach to run on."""

LANGUAGES = {".py": "Python", ".rs": "Rust", ".ts": "TypeScript", ".js": "JavaScript"}
CHAT = (
    "<|im_start|>system\nYou are an expert programmer. Answer briefly and exactly.<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
"""As the model's template and the server have it."""


def question(file, rng):
    """A question as the server's tasks ask it, about some lines of a file, or None where chance hits a blank."""
    language = LANGUAGES.get(pathlib.PurePath(file["name"]).suffix)
    lines = file["text"].split("\n")
    starts = [number for number, line in enumerate(lines) if line[:1].isalpha()]
    if not language or not starts:
        return None
    start = rng.choice(starts)
    code = "\n".join(lines[start : start + rng.randint(3, 14)]).strip()
    if len(code) > 500:
        return None
    fenced = f"```{language.lower()}\n{code}\n```"
    other = rng.choice([other for other in LANGUAGES.values() if other != language])
    return rng.choice(
        [
            CHAT.format(f"Explain step by step what this {language} code does.\n\n{fenced}"),
            CHAT.format(f"Translate this {language} code to {other}.\n\n{fenced}") + f"```{other.lower()}\n",
            CHAT.format(f"Fix this {language} code.\n\n{fenced}") + f"```{language.lower()}\n",
            CHAT.format(f"Write {language} code: {lines[start].strip()}") + f"```{language.lower()}\n",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("corpus", type=pathlib.Path, help="answers.jsonl is written there")
    parser.add_argument("--count", type=int, default=120, help="answers that end; more questions are asked")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    session, rng = Session(options.folder), random.Random(options.seed)
    draw = np.random.default_rng(options.seed)
    files = read(options.corpus / "train.jsonl")
    end = session.tokenizer.token_to_id("<|im_end|>")

    def choose(logits, _):
        # Gumbel's trick: a draw from the distribution.
        return int((logits / TEMPERATURE + draw.gumbel(size=logits.shape)).argmax())

    with open(options.corpus / "answers.jsonl", "w", encoding="utf-8") as out:
        kept = 0
        while kept < options.count:
            if not (asked := question(rng.choice(files), rng)):
                continue
            ids = session.tokenizer.encode(asked, add_special_tokens=False).ids
            written = session.write(ids, end, choose, NEW)
            if len(written) < NEW:
                answer = session.tokenizer.decode(written) + "<|im_end|>"
                print(json.dumps({"question": asked, "answer": answer}), file=out, flush=True)
                kept += 1


if __name__ == "__main__":
    main()
