"""Cuts holes into source text, and lays them out as the server does for the model."""

import dataclasses
import random

IGNORED = 0
"""The id behind the end of a sample that is shorter than its neighbours; it has no weight."""


@dataclasses.dataclass(frozen=True)
class Hole:
    kind: str
    file_name: str
    prefix: str
    middle: str
    suffix: str


def line(text, at, rng):
    """A whole line with its indentation; every second time with its end, as if it had never been there."""
    start, end = bounds(text, at)
    return (start, end + 1) if end < len(text) and rng.random() < 0.5 else (start, end)


def indented(text, at, rng):
    """A line behind its indentation."""
    start, end = bounds(text, at)
    return end - len(text[start:end].lstrip()), end


def rest(text, at, rng):
    """What follows a random character, to the end of its line."""
    return at, bounds(text, at)[1]


def span(text, at, rng):
    """Some characters within a line."""
    end = bounds(text, at)[1]
    return at, rng.randint(at, max(at, end - 1))


def block(text, at, rng):
    """Two to five lines, between two that stay."""
    start, end = bounds(text, at)
    for _ in range(rng.randint(1, 4)):
        end = bounds(text, min(end + 1, len(text)))[1]
    return start, end


KINDS = {"line": line, "indented": indented, "rest": rest, "span": span, "block": block}
"""Each answers where a hole of its kind begins and ends, near the character `at`."""


def bounds(text, at):
    """Where the line around `at` begins and ends, its line end excluded."""
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    return start, len(text) if end < 0 else end


def cut(file_name, text, kind, rng):
    """A hole of this kind with something in it, or None where chance hits a blank."""
    start, end = KINDS[kind](text, rng.randrange(len(text)), rng)
    if not text[start:end].strip():
        return None
    return Hole(kind, file_name, text[:start], text[start:end], text[end:])


@dataclasses.dataclass(frozen=True)
class Sample:
    """Token ids, and for each how much its prediction counts. `end` is where the end token stands."""

    kind: str
    ids: list[int]
    weights: list[float]
    middle: int
    end: int


class Layout:
    """The form of a prompt: `<filename>NAME\\n<fim_suffix>SUFFIX<fim_prefix>PREFIX<fim_middle>` for the
    order `spm`, with prefix and suffix exchanged for `psm`."""

    MARKERS = ("<filename>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>")

    def __init__(self, tokenizer, order, context, other_weight):
        self.tokenizer, self.order, self.context, self.other_weight = tokenizer, order, context, other_weight
        self.markers = [tokenizer.token_to_id(marker) for marker in self.MARKERS]
        self.file, self.prefix, self.suffix, self.middle, self.end = self.markers

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def lay(self, hole, with_suffix=True):
        """The sample of a hole, or None where its middle takes more than a third of the context."""
        middle = self.encode(hole.middle)
        if len(middle) > self.context // 3:
            return None
        # No token is longer than these, so what is cut off here is never needed.
        reach = 8 * self.context
        suffix = self.encode(hole.suffix[:reach])[: self.context // 4] if with_suffix else []
        file = [self.file, *self.encode(f"{hole.file_name}\n")]
        room = self.context - len(file) - len(suffix) - len(middle) - 4
        prefix = self.encode(hole.prefix[-reach:])[-max(room, 0) :] if room > 0 else []
        parts = [(self.suffix, suffix), (self.prefix, prefix)]
        if self.order == "psm":
            parts.reverse()
        before = file + [id for marker, part in parts for id in (marker, *part)] + [self.middle]
        ids = [*before, *middle, self.end]
        weights = [self.other_weight] * len(before) + [1.0] * (len(middle) + 1)
        return Sample(hole.kind, ids, weights, len(before), len(ids) - 1)


class Stream:
    """Samples without end. Which one comes at a step depends on the seed and the step alone, so that a
    run that goes on after a stop sees what it would have seen."""

    def __init__(self, files, layout, shares, seed):
        self.files, self.layout, self.seed = files, layout, seed
        self.kinds, self.shares = list(shares), list(shares.values())

    def batch(self, step, size):
        rng = random.Random(f"{self.seed}/{step}")
        samples = []
        while len(samples) < size:
            file = rng.choice(self.files)
            kind = rng.choices(self.kinds, self.shares)[0]
            hole = cut(file["name"], file["text"], kind, rng)
            sample = hole and self.layout.lay(hole)
            if sample:
                samples.append(sample)
        return samples


def held_out_holes(files, per_kind, seed):
    """The same holes for every evaluation: so many of each kind."""
    rng = random.Random(f"{seed}/held out")
    holes = []
    for kind in KINDS:
        found = []
        while len(found) < per_kind:
            file = rng.choice(files)
            hole = cut(file["name"], file["text"], kind, rng)
            # With no suffix there is none to gain from.
            if hole and hole.suffix.strip() and len(hole.middle) < 200:
                found.append(hole)
        holes += found
    return holes
