"""What guiding by the suffix gives, adding to the logits what the suffix changes in them (arXiv 2305.14739):
`python guide.py CORPUS` prints the loss in nats a token of the middle and at its end for each weight of that."""

import pathlib
import sys

import torch
from tokenizers import Tokenizer

from decoder import Decoder
from holes import Layout, held_out_holes
from train import HERE, MEASURED, read
from weights import Graph

WEIGHTS = (-0.5, -0.25, 0.0, 0.25, 0.5, 1.0)


def logits(decoder, sample):
    positions, branches = torch.tensor([sample.positions]), torch.tensor([sample.branches])
    own = branches.unsqueeze(2) == branches.unsqueeze(1)
    left = (branches == 0).unsqueeze(1) & (positions.unsqueeze(1) < torch.tensor([sample.joints]).unsqueeze(2))
    rows = torch.tensor([sample.weights]) > 0
    visible = (own | left).tril()
    return decoder(torch.tensor([sample.ids]), positions, visible, rows), torch.tensor([sample.targets])[rows]


@torch.no_grad()
def main():
    model = HERE.parent / "smollm2-135m-fim"
    decoder = Decoder(Graph(model).read(), learned=0)
    layout = Layout(Tokenizer.from_file(str(model / "tokenizer.json")), "spm", MEASURED)
    holes = held_out_holes(read(pathlib.Path(sys.argv[1]) / "held_out.jsonl"), 32)
    losses = {weight: [] for weight in WEIGHTS}
    for hole in filter(layout.lay, holes):
        given, targets = logits(decoder, layout.lay(hole))
        withheld, _ = logits(decoder, layout.lay(hole, with_suffix=False))
        change = given.log_softmax(-1) - withheld.log_softmax(-1)
        for weight in WEIGHTS:
            guided = (given + weight * change).log_softmax(-1)
            losses[weight].append(-guided.gather(1, targets[:, None])[:, 0])
    for weight, of_holes in losses.items():
        middle = torch.cat([loss[:-1] for loss in of_holes]).mean()
        end = torch.stack([loss[-1] for loss in of_holes]).mean()
        print(f"{weight:5.2f}  middle {middle:.3f}  end {end:.3f}", flush=True)


if __name__ == "__main__":
    main()
