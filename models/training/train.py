"""Teaches a model folder to fill holes: `python train.py CORPUS RUN`.

Killed at any time, the same command goes on from the last checkpoint, and its losses are those of a run
that was not killed.
"""

import argparse
import json
import math
import os
import pathlib
import time
from statistics import fmean

import torch
from tokenizers import Tokenizer
from torch.nn import functional

from decoder import Decoder
from holes import ENDS, IGNORED, KINDS, SOURCES, Layout, Stream, held_out_holes
from weights import Graph

HERE = pathlib.Path(__file__).parent


def options(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path, help="the folder that data.py has written")
    parser.add_argument("run", type=pathlib.Path, help="the folder for checkpoints and the log")
    parser.add_argument("--model", type=pathlib.Path, default=HERE.parent / "smollm2-135m-fim", help="to begin with")
    parser.add_argument("--steps", type=int, default=600, help="0 measures the model as it is")
    parser.add_argument("--batch", type=int, default=8, help="samples a step")
    parser.add_argument("--context", type=int, default=320, help="tokens a sample")
    parser.add_argument("--branches", type=int, default=32, help="holes a sample, at most")
    parser.add_argument("--rank", type=int, default=32, help="of the learned change of each matrix; 0 learns the matrix")
    parser.add_argument("--layers", type=int, help="the upper layers that learn, if not all")
    parser.add_argument("--bf16", action="store_true", help="multiply in bfloat16: fast where the processor can")
    parser.add_argument("--rate", type=float, default=3e-4, help="learning rate, after the warm-up")
    parser.add_argument("--warm-up", type=int, default=20, help="steps")
    parser.add_argument("--order", choices=("spm", "psm"), default="spm")
    parser.add_argument("--other-weight", type=float, default=0.25, help="of the loss outside the middle")
    parser.add_argument("--behind-weight", type=float, default=1.0, help="of the loss of words that stand only behind")
    parser.add_argument("--ends", type=shares, default="rest=3,line=2,span=3,block=2", help="how often a hole ends where")
    parser.add_argument("--answers", type=float, default=0.0, help="share of samples from what answers.py has written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=50, help="steps between two checkpoints")
    parser.add_argument("--holes", type=int, default=16, help="held-out holes of each kind for an evaluation")
    return parser.parse_args(arguments)


def shares(text):
    """`line=3,span=1` as a dictionary."""
    parts = dict(part.split("=") for part in text.split(","))
    if unknown := parts.keys() - set(ENDS):
        raise argparse.ArgumentTypeError(f"unknown ends {sorted(unknown)}; known are {', '.join(ENDS)}")
    return {end: float(share) for end, share in parts.items()}


def read(file):
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def losses(decoder, samples):
    """The losses in nats where something counts, their weights, and the number of the sample of each."""
    length = max(len(sample.ids) for sample in samples)

    def stack(name, filler):
        return torch.tensor([getattr(sample, name) + [filler] * (length - len(sample.ids)) for sample in samples])

    branches, positions, weights = stack("branches", -1), stack("positions", 0), stack("weights", 0.0)
    own = branches.unsqueeze(2) == branches.unsqueeze(1)
    left = (branches == 0).unsqueeze(1) & (positions.unsqueeze(1) < stack("joints", 0).unsqueeze(2))
    visible = (own | left).tril()
    rows = weights > 0
    logits = decoder(stack("ids", IGNORED), positions, visible, rows)
    loss = functional.cross_entropy(logits, stack("targets", IGNORED)[rows], reduction="none")
    return loss, weights[rows], rows.nonzero()[:, 0]


HELD_OUT = 16
"""The first so many answers are measured and not learned."""

MEASURED = 256
"""The context of a measured hole in tokens: the same for all runs, whatever they learn from."""


@torch.no_grad()
def evaluate(decoder, tokenizer, order, holes):
    """Suffix gain: the loss with the suffix withheld minus the loss with it, in nats a token of the
    middle and at the end token, for each kind and for all; and of the tokens of all middles by where
    else their words stand, for only what stands behind a hole can be gained from there."""
    layout = Layout(tokenizer, order, MEASURED)
    arms = {"with": True, "without": False}
    # Without the suffix there is more room, not less.
    holes = [hole for hole in holes if layout.lay(hole)]
    measured = {arm: measure(decoder, [layout.lay(hole, given) for hole in holes]) for arm, given in arms.items()}
    table = {}
    for kind in [*KINDS, "all"]:
        chosen = [number for number, hole in enumerate(holes) if kind in (hole.kind, "all")]
        # A kind may have no hole that fits.
        if not chosen:
            continue
        of_kind = {arm: [measured[arm][number] for number in chosen] for arm in arms}
        middle = gain({arm: [loss for *middle, _ in of_arm for loss in middle] for arm, of_arm in of_kind.items()})
        end = gain({arm: [end for *_, end in of_arm] for arm, of_arm in of_kind.items()})
        table[kind] = middle | {f"end {name}": value for name, value in end.items()}
    sources = [layout.sources(*layout.parts(hole)) for hole in holes]
    for source in SOURCES:
        of_source = {
            # The end token, the last one, has no source.
            arm: [loss for losses, of in zip(measured[arm], sources) for loss, its in zip(losses, of) if its == source]
            for arm in arms
        }
        if of_source["with"]:
            table[source] = gain(of_source) | {"tokens": len(of_source["with"])}
    return table


def gain(losses):
    """The means of the losses with and without the suffix, and their difference."""
    row = {arm: fmean(of_arm) for arm, of_arm in losses.items()}
    row["gain"] = row["without"] - row["with"]
    return {name: round(value, 3) for name, value in row.items()}


@torch.no_grad()
def answer_loss(decoder, samples):
    """The loss in nats a token of answers."""
    return fmean(loss for losses in measure(decoder, samples) for loss in losses)


def measure(decoder, samples):
    """The losses of each sample of one hole: the tokens of the middle, then the end token."""
    measured = [[] for _ in samples]
    # Neighbours of about one length leave little to fill up.
    order = sorted(range(len(samples)), key=lambda number: len(samples[number].ids))
    for batch in (order[at : at + 16] for at in range(0, len(order), 16)):
        loss, _, owners = losses(decoder, [samples[number] for number in batch])
        for value, owner in zip(loss.tolist(), owners.tolist()):
            measured[batch[owner]].append(value)
    return measured


class Run:
    """A training run, and what of it survives a kill."""

    def __init__(self, options):
        self.options = options
        self.tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
        layout = Layout(
            self.tokenizer, options.order, options.context, options.other_weight, options.behind_weight
        )
        torch.manual_seed(options.seed)
        weights = Graph(options.model).read()
        self.decoder = Decoder(weights, options.rank, options.layers, layout.markers, options.bf16)
        self.learned = [weight for weight in self.decoder.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.learned, lr=options.rate, weight_decay=0.0)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.rate)
        files = read(options.corpus / "train.jsonl")
        answers = options.corpus / "answers.jsonl"
        answers = read(answers) if answers.exists() else []
        if options.answers and len(answers) <= HELD_OUT:
            raise SystemExit(f"{options.corpus} has no more than the {HELD_OUT} answers that are measured: see answers.py")
        self.answers = [layout.answered(**answer) for answer in answers[:HELD_OUT]]
        learned = answers[HELD_OUT:], options.answers
        self.stream = Stream(files, layout, options.ends, options.branches, options.seed, *learned)
        self.held_out = held_out_holes(read(options.corpus / "held_out.jsonl"), options.holes)
        self.step = 0
        options.run.mkdir(parents=True, exist_ok=True)
        self.checkpoint = options.run / "checkpoint.pt"
        self.log = options.run / "log.jsonl"

    def rate(self, step):
        """The share of the learning rate: up in a line, and down to a tenth along a cosine."""
        options = self.options
        if step < options.warm_up:
            return (step + 1) / options.warm_up
        done = (step - options.warm_up) / max(1, options.steps - options.warm_up)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(done, 1.0)))

    def resume(self):
        """Goes back to the last checkpoint, if there is one, and forgets what was logged after it."""
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, weights_only=True)
        learned = settings(self.options)
        if state["settings"] != learned:
            raise SystemExit(f"{self.checkpoint} was made with other settings: {state['settings']}, now {learned}")
        self.decoder.load_state_dict(state["decoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]
        # The last line may be half of one.
        lines = [line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in lines if json.loads(line)["step"] <= self.step]
        replace(self.log, lambda file: file.write_text("".join(kept)))

    def save(self):
        state = {
            "settings": settings(self.options),
            "decoder": self.decoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
        }
        replace(self.checkpoint, lambda file: torch.save(state, file))

    def train_step(self):
        samples = self.stream.batch(self.step, self.options.batch)
        loss, weights, _ = losses(self.decoder, samples)
        loss = (loss * weights).sum() / weights.sum()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return loss.item(), sum(len(sample.ids) for sample in samples)

    def write(self, entry):
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        print(json.dumps(entry), flush=True)

    def evaluate(self):
        entry = {"step": self.step}
        if self.answers:
            entry["answers"] = round(answer_loss(self.decoder, self.answers), 3)
        entry["suffix"] = evaluate(self.decoder, self.tokenizer, self.options.order, self.held_out)
        self.write(entry)

    def train(self):
        self.resume()
        start, first, seen = time.monotonic(), self.step, 0
        if self.options.steps == 0:
            self.evaluate()
        while self.step < self.options.steps:
            loss, tokens = self.train_step()
            seen += tokens
            self.write({"step": self.step, "loss": round(loss, 5)})
            if self.step % self.options.every == 0 or self.step == self.options.steps:
                self.evaluate()
                self.save()
            elapsed = time.monotonic() - start
            left = elapsed / (self.step - first) * (self.options.steps - self.step)
            print(f"{seen / elapsed:.0f} tokens/s, {left / 60:.0f} minutes left", flush=True)


def settings(options):
    """What a run that goes on must have in common with its beginning."""
    same = vars(options).keys() - {"corpus", "run", "model", "every"}
    return {name: vars(options)[name] for name in sorted(same)}


def replace(file, write):
    """Writes a file so that a kill leaves the old one or the new one."""
    part = file.with_suffix(".part")
    write(part)
    with open(part, "rb") as written:
        os.fsync(written.fileno())
    os.replace(part, file)


if __name__ == "__main__":
    Run(options()).train()
