"""Writes into the holes of a set what a model folder puts there: `python complete.py FOLDER SET OUT`.

SET holds the rows of HumanEval-Infilling, or files, as of a corpus, to cut holes from. OUT holds the rows
with what was `written`: the likeliest token each time, to the end of the first line with something in it.
`cargo bench --bench infilling -- OUT` scores it beside what the server shows for the same rows.
"""

import argparse
import json
import pathlib

import numpy as np

from holes import Hole, Layout, held_out_holes
from session import Session
from train import read

CONTEXT = 2048
"""Tokens of a prompt, at most."""

NEW = 64
"""Tokens that are written, at most."""


def complete(session, layout, hole):
    """What the model puts into a hole, the likeliest token each time."""
    letters = session.letters
    ids, healed = layout.prompt(hole)
    # What it must write again.
    before, length = "".join(letters[healed]), len(session.tokenizer.decode(healed))

    def text(written):
        return session.tokenizer.decode(written)[length:]

    def choose(logits, written):
        if "\n" in text(written).lstrip():
            return None
        left = before[len("".join(letters[written])) :]
        if left:
            fits = [letter.startswith(left) or left.startswith(letter) for letter in letters]
            logits[~np.array(fits)] = -np.inf
        return int(logits.argmax())

    return text(session.write(ids, layout.end, choose, NEW))


def rows_of(file, per_kind, seed):
    """The rows of a set, in the form of HumanEval-Infilling; those of files have no tests."""
    rows = read(file)
    if "text" not in rows[0]:
        return rows
    names = {"prefix": "prompt", "middle": "canonical_solution"}
    # Where a line end is missing too there is no cursor.
    holes = [hole for hole in held_out_holes(rows, per_kind, seed) if not hole.middle.endswith("\n")]
    return [{names.get(name, name): value for name, value in vars(hole).items()} for hole in holes]


def hole_of(row):
    """The hole of a row, whose middle is not known; where a whole line was the cursor stands on a blank one."""
    behind = ("\n" if "test" in row else "") + row["suffix"]
    return Hole(row.get("kind"), row.get("file_name", "solution.py"), row["prompt"], "", behind)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("set", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--holes", type=int, default=40, help="of each kind, where SET is of files")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    session = Session(options.folder)
    layout = Layout(session.tokenizer, session.order, CONTEXT)
    with open(options.out, "w", encoding="utf-8") as out:
        for row in rows_of(options.set, options.holes, options.seed):
            written = complete(session, layout, hole_of(row))
            print(json.dumps(row | {"written": written}), file=out, flush=True)


if __name__ == "__main__":
    main()
