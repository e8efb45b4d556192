"""Cuts holes into source text, and lays them out as the server does for the model."""

import dataclasses
import random
import re

IGNORED = 0
"""Stands where there is no token; nothing there counts."""

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
    return start + indentation(text[start:end]), end


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


def opened(text, at, rng):
    """What a line has opened, from behind that line's end; nothing where the next line is not indented more."""
    start, end = bounds(text, at)
    below, below_end = bounds(text, min(end + 1, len(text)))
    if indentation(text[below:below_end]) <= indentation(text[start:end]):
        return end, end
    return end, block_end(text, below)


KINDS = {"line": line, "indented": indented, "rest": rest, "span": span, "block": block, "opened": opened}
"""Each answers where a hole of its kind begins and ends, near the character `at`."""


def bounds(text, at):
    """Where the line around `at` begins and ends, its line end excluded."""
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    return start, len(text) if end < 0 else end


def indentation(line):
    """How many blanks a line begins with."""
    return len(line) - len(line.lstrip())


def block_end(text, at):
    """Where the block of the line around `at` ends: behind its last line before one that is indented less."""
    start, end = bounds(text, at)
    depth, last = indentation(text[start:end]), end
    while end < len(text):
        start, end = bounds(text, end + 1)
        if text[start:end].strip():
            if indentation(text[start:end]) < depth:
                break
            last = end
    return last


CLOSING = re.compile(r"\s*\n[ \t]*[)\]}]+[,;]?")


def closed(text, end):
    """Where a block that ends at `end` is closed by the bracket below it, or its end where none stands there."""
    closing = CLOSING.match(text, end)
    return closing.end() if closing else end


def cut(file_name, text, kind, rng):
    """A hole of this kind with something in it, or None where chance hits a blank."""
    start, end = KINDS[kind](text, rng.randrange(len(text)), rng)
    if not text[start:end].strip():
        return None
    return Hole(kind, file_name, text[:start], text[start:end], text[end:])


ENDS = ("rest", "line", "span", "block")
"""Where the holes of a tree may end: with a line, behind its end, within it, with a block."""


def end_of(kind, text, rng):
    """A place for the holes of a tree to end, or None where chance hits a blank line."""
    start, end = bounds(text, rng.randrange(len(text)))
    if not text[start:end].strip():
        return None
    if kind == "block":
        return block_end(text, start)
    return {"rest": end, "line": min(end + 1, len(text)), "span": rng.randint(start, end)}[kind]


def start_of(text, end, rng):
    """A place for a hole that ends at `end` to begin: within the line, behind its indentation, at its start,
    or one to four lines before, half of these behind a line's end, where the cursor stands when a block has
    been opened."""
    start, line_end = bounds(text, end - text.endswith("\n", 0, end))
    chance = rng.random()
    if chance < 0.3:
        return rng.randint(start, min(end, line_end))
    if chance < 0.45:
        return min(end, start + indentation(text[start:line_end]))
    if chance < 0.6:
        return start
    for _ in range(rng.randint(1, 4)):
        start, line_end = bounds(text, max(start - 1, 0))
    return line_end if chance < 0.8 else rng.randint(start, line_end)


@dataclasses.dataclass
class Sample:
    """Holes that share what stands before them: a trunk of tokens with branches. A token of a branch sees
    the trunk up to where its branch leaves it, and its branch up to itself.

    All lists are as long as `ids`: what a token is to predict and how much that counts, its position, its
    branch (0 for the trunk), and the position at which its branch leaves the trunk.
    """

    ids: list[int] = dataclasses.field(default_factory=list)
    targets: list[int] = dataclasses.field(default_factory=list)
    weights: list[float] = dataclasses.field(default_factory=list)
    positions: list[int] = dataclasses.field(default_factory=list)
    branches: list[int] = dataclasses.field(default_factory=list)
    joints: list[int] = dataclasses.field(default_factory=list)

    def grow(self, branch, joint, ids, weight):
        """Goes on with a branch; that its tokens are predicted counts so much."""
        for id in ids:
            goes_on = bool(self.branches) and self.branches[-1] == branch
            if goes_on:
                self.targets[-1], self.weights[-1] = id, weight
            self.positions.append(self.positions[-1] + 1 if goes_on else joint)
            self.ids.append(id)
            self.targets.append(IGNORED)
            self.weights.append(0.0)
            self.branches.append(branch)
            self.joints.append(joint)


WORD = re.compile(r"[^\W\d]\w+")
SOURCES = ("behind", "before", "nowhere", "no word")
"""Where else the word stands that a token of a middle is of: only behind the hole, before it, in neither;
or it is of no word."""


class Layout:
    """The form of a prompt: `<filename>NAME\\n<fim_suffix>SUFFIX<fim_prefix>PREFIX<fim_middle>` for the
    order `spm`, with prefix and suffix exchanged for `psm`."""

    MARKERS = ("<filename>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>")

    def __init__(self, tokenizer, order, context, other_weight=0.0, behind_weight=1.0):
        self.tokenizer, self.order, self.context = tokenizer, order, context
        self.other_weight, self.behind_weight = other_weight, behind_weight
        self.markers = [tokenizer.token_to_id(marker) for marker in self.MARKERS]
        self.file, self.prefix, self.suffix, self.middle, self.end = self.markers

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def split(self, text, start):
        """The tokens before `start`, and those from there on. As in the server the last token before it
        is left to the model to write again (token healing), unless a line end is in it."""
        before = self.tokenizer.encode(text[:start], add_special_tokens=False)
        ids = before.ids
        if ids and "\n" not in text[before.offsets[-1][0] : start]:
            start = before.offsets[-1][0]
            ids = ids[:-1]
        return ids, self.encode(text[start:])

    def parts(self, hole, with_suffix=True):
        """The tokens of the suffix, the prefix and the middle, cut to the context; None where the middle
        leaves no room for the prefix."""
        # No token is longer than this, so what is cut off here is never needed.
        reach = 8 * self.context
        before = hole.prefix[-reach:]
        prefix, middle = self.split(before + hole.middle, len(before))
        suffix = self.encode(hole.suffix[:reach])[: self.context // 4] if with_suffix else []
        room = self.context - len(self.trunk(hole.file_name, suffix, []).ids) - len(middle) - 3
        if room <= 0:
            return None
        return suffix, prefix[-min(room, self.context // 2) :], middle

    def lay(self, hole, with_suffix=True):
        """The sample of one hole, or None where its middle leaves no room for it."""
        parts = self.parts(hole, with_suffix)
        if not parts:
            return None
        suffix, prefix, middle = parts
        sample = self.trunk(hole.file_name, suffix, prefix)
        self.branch(sample, suffix, prefix, prefix, middle)
        return sample

    def sources(self, suffix, prefix, middle):
        """Of each token of a middle, which of `SOURCES` its word has."""
        behind, before = (set(WORD.findall(self.tokenizer.decode(ids))) for ids in (suffix, prefix))
        ends = [len(self.tokenizer.decode(middle[:count])) for count in range(len(middle) + 1)]
        words = list(WORD.finditer(self.tokenizer.decode(middle)))

        def source(start, end):
            word = next((word[0] for word in words if word.start() < end and word.end() > start), None)
            if word is None:
                return "no word"
            return "before" if word in before else "behind" if word in behind else "nowhere"

        return [source(start, end) for start, end in zip(ends, ends[1:])]

    def prompt(self, hole):
        """The prompt of a hole with nothing in it, and the tokens before it that are to be written again."""
        ids = self.lay(hole).ids
        middle = len(ids) - ids[::-1].index(self.middle)
        return ids[:middle], ids[middle:-1]

    def tree(self, file_name, text, end, most, rng):
        """The sample of at most so many holes that end at `end`, or None where chance finds none that fit
        the context. How much of the suffix and of the prefix is there is random too."""
        reach = 8 * self.context
        suffix = self.encode(text[end : end + reach])[: rng.randint(4, self.context // 4)]
        trunk = self.encode(text[max(0, end - reach) : end])[-rng.randint(self.context // 8, self.context // 2) :]
        before = self.tokenizer.decode(trunk)
        trunk = self.encode(before)
        sample = self.trunk(file_name, suffix, trunk)
        shortest, seen = len(sample.ids), set()
        for _ in range(2 * most):
            start = start_of(text, end, rng) - (end - len(before))
            if start < 0 or sample.branches[-1] == most or start in seen or not before[start:].strip():
                continue
            seen.add(start)
            self.branch(sample, suffix, trunk, *self.split(before, start))
        return sample if len(sample.ids) > shortest else None

    def answered(self, question, answer):
        """The sample of a conversation, of which the answer is learned."""
        sample = Sample()
        sample.grow(0, 0, self.encode(question), 0.0)
        sample.grow(0, 0, self.encode(answer)[: max(0, self.context - len(sample.ids))], 1.0)
        return sample

    def trunk(self, file_name, suffix, prefix):
        """A sample that has no hole yet."""
        sample = Sample()
        shared = [self.file, *self.encode(f"{file_name}\n")]
        if self.order == "spm":
            shared += [self.suffix, *suffix]
        sample.grow(0, 0, [*shared, self.prefix, *prefix], self.other_weight)
        return sample

    def branch(self, sample, suffix, trunk, prefix, middle):
        """Adds a hole behind `prefix` to a sample with this trunk, if it fits the context."""
        kept = common(prefix, trunk)
        own = prefix[kept:]
        if self.order == "psm":
            own += [self.suffix, *suffix]
        if len(sample.ids) + len(own) + len(middle) + 2 > self.context:
            return
        number = sample.branches[-1] + 1
        joint = sample.branches.count(0) - len(trunk) + kept
        sample.grow(number, joint, [*own, self.middle], 0.0)
        weights = [self.behind_weight if its == "behind" else 1.0 for its in self.sources(suffix, prefix, middle)]
        for id, weight in zip([*middle, self.end], [*weights, 1.0]):
            sample.grow(number, joint, [id], weight)


def common(one, other):
    """How many ids two lists begin with in common."""
    return next((n for n, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


class Stream:
    """Samples without end. Which one comes at a step depends on the seed and the step alone, so that a
    run that goes on after a stop sees what it would have seen."""

    def __init__(self, files, layout, ends, branches, seed, answers=(), share=0.0):
        self.files, self.layout, self.branches, self.seed = files, layout, branches, seed
        self.answers, self.share = answers, share
        self.ends, self.shares = list(ends), list(ends.values())

    def batch(self, step, size):
        rng = random.Random(f"{self.seed}/{step}")
        samples = []
        while len(samples) < size:
            if self.share and rng.random() < self.share:
                samples.append(self.layout.answered(**rng.choice(self.answers)))
                continue
            file = rng.choice(self.files)
            text, [kind] = file["text"], rng.choices(self.ends, self.shares)
            end = end_of(kind, text, rng)
            # Of the blocks half are the last thing so far, as where one is being written.
            if end and kind == "block" and rng.random() < 0.5:
                end = closed(text, end)
                text = text[:end]
            sample = end and self.layout.tree(file["name"], text, end, self.branches, rng)
            if sample:
                samples.append(sample)
        return samples


def held_out_holes(files, per_kind, seed=0):
    """The same holes for every evaluation and every run: so many of each kind."""
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
