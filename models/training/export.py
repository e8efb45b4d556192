"""Writes what was learned as a model folder for Interline: `python export.py RUN FOLDER`."""

import argparse
import json
import pathlib
import re

import torch
from tokenizers import Tokenizer

from decoder import Decoder
from holes import Layout, held_out_holes
from train import HERE, evaluate, read
from weights import Graph, write_sums


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=pathlib.Path, help="the folder of the training run")
    parser.add_argument("folder", type=pathlib.Path, help="is written, and must not be there")
    parser.add_argument("--model", type=pathlib.Path, default=HERE.parent / "smollm2-135m-fim", help="it began with")
    parser.add_argument("--corpus", type=pathlib.Path, help="with it, the suffix gain of the result is printed")
    options = parser.parse_args()
    if options.folder.exists():
        raise SystemExit(f"{options.folder} is there already")

    state = torch.load(options.run / "checkpoint.pt", weights_only=True)
    settings = state["settings"]
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    layout = Layout(tokenizer, settings["order"], settings["context"])
    graph = Graph(options.model)
    decoder = Decoder(graph.read(), settings["rank"], settings["layers"], layout.markers)
    decoder.load_state_dict(state["decoder"])
    graph.write(decoder.merged(), options.folder)
    manifest = options.folder / "model.toml"
    manifest.write_text(re.sub(r'order = "\w+"', f'order = "{settings["order"]}"', manifest.read_text()))
    write_sums(options.folder)

    if options.corpus:
        written = Decoder(Graph(options.folder).read(), learned=0)
        holes = held_out_holes(read(options.corpus / "held_out.jsonl"), settings["holes"])
        for kind, row in evaluate(written, tokenizer, settings["order"], holes).items():
            print(json.dumps({"kind": kind, **row}))


if __name__ == "__main__":
    main()
