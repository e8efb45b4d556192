"""The training's laws, on a tiny model and, where it counts, on the shipped one."""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from tokenizers import Tokenizer

TRAINING = pathlib.Path(__file__).parents[1]
SHIPPED = TRAINING.parent / "smollm2-135m-fim"
EXAMPLES = TRAINING.parents[1] / "examples"
sys.path.insert(0, str(TRAINING))

import base  # noqa: E402
import complete  # noqa: E402
import data  # noqa: E402
from answers import LANGUAGES, question  # noqa: E402
from decoder import HEAD, LINEARS, Decoder  # noqa: E402
from holes import ENDS, KINDS, SOURCES, Hole, Layout, Stream, block_end, closed, cut, held_out_holes  # noqa: E402
from session import Session  # noqa: E402
from train import losses  # noqa: E402
from weights import QUANTISED, SCALE, Graph, quantise  # noqa: E402

TEXT = (EXAMPLES / "inventory.py").read_text()
TOKENIZER = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A model folder with two layers of one head: only its weights, as only they are read."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    rng = np.random.default_rng(0)
    tensors = {"cos_cache": np.ones((512, HEAD // 2)), "sin_cache": np.zeros((512, HEAD // 2))}
    shapes = {"attn.qkv_proj": 3 * HEAD, "attn.o_proj": HEAD, "mlp.gate_proj": HEAD, "mlp.up_proj": HEAD}
    matrices = {"lm_head.MatMul.weight": TOKENIZER.get_vocab_size()}
    for layer in range(2):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{norm}.weight"] = np.ones(HEAD)
        for linear in LINEARS:
            matrices[f"model.layers.{layer}.{linear}.MatMul.weight"] = shapes.get(linear, HEAD)
    tensors["model.layers.2.final_norm_layernorm.weight"] = np.ones(HEAD)
    tensors = {name: values.astype(np.float32) for name, values in tensors.items()}
    for name, rows in matrices.items():
        blocks, scales = quantise(0.1 * rng.standard_normal((rows, HEAD), np.float32))
        tensors[name + QUANTISED], tensors[name + SCALE] = blocks, scales
    graph = helper.make_graph([], "tiny", [], [], [numpy_helper.from_array(v, n) for n, v in tensors.items()])
    onnx.save(
        helper.make_model(graph),
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    for name in ("tokenizer.json", "model.toml"):
        shutil.copy(SHIPPED / name, folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    files = [{"name": file.name, "text": file.read_text()} for file in sorted(EXAMPLES.glob("*.py"))]
    for part in ("train", "held_out"):
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(file) + "\n" for file in files))
    return folder


def start(corpus, run, tiny, *more):
    command = [sys.executable, TRAINING / "train.py", corpus, run, "--model", tiny, "--steps", 12, "--every", 4]
    command += ["--batch", 2, "--context", 96, "--rank", 4, "--holes", 1, *more]
    # With one thread sums are added in one order.
    return subprocess.Popen([str(word) for word in command], env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def entries(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_killed_run_goes_on_as_if_it_had_not_been(tiny, corpus, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(corpus, whole, tiny).wait() == 0
    # Behind a checkpoint and some steps that are in none.
    process = start(corpus, killed, tiny)
    for line in process.stdout:
        if line.startswith('{"step": 6,'):
            process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert start(corpus, killed, tiny).wait() == 0
    assert entries(killed) == entries(whole)
    # It does learn.
    assert [entry["step"] for entry in entries(whole) if "loss" in entry] == list(range(1, 13))


def test_other_settings_do_not_go_on(tiny, corpus, tmp_path):
    assert start(corpus, tmp_path, tiny).wait() == 0
    process = start(corpus, tmp_path, tiny, "--seed", 1)
    said, _ = process.communicate()
    assert process.returncode != 0 and "other settings" in said


def test_a_share_of_the_samples_are_answers_of_which_only_the_answer_is_learned():
    layout = Layout(TOKENIZER, "spm", 320, 0.25)
    files = [{"name": "inventory.py", "text": TEXT}]
    asked = question(files[0], random.Random(0))
    answers = [{"question": asked, "answer": "It adds.<|im_end|>"}]
    batch = Stream(files, layout, dict.fromkeys(ENDS, 1.0), 4, 0, answers, 0.5).batch(0, 40)
    answered = [sample for sample in batch if sample.ids[0] != layout.file]
    assert 10 < len(answered) < 30
    [learned] = {tuple(id for id, weight in zip(sample.targets, sample.weights) if weight) for sample in answered}
    assert TOKENIZER.decode(list(learned), skip_special_tokens=False) == "It adds.<|im_end|>"


def test_neighbours_that_are_rotated_become_halves():
    halves = np.arange(2 * HEAD).reshape(2, 2, HEAD // 2, 1)
    neighbours = halves.swapaxes(1, 2).reshape(2 * HEAD, 1)
    assert neighbours[:2, 0].tolist() == [0, HEAD // 2]
    assert base.halves(neighbours)[:, 0].tolist() == list(range(2 * HEAD))


def test_a_mix_is_between_two_models_and_keeps_the_markers():
    name = "lm_head.MatMul.weight"
    zeros, ones = {name: np.zeros((3, HEAD))}, {name: np.ones((3, HEAD))}
    assert base.mixed(zeros, ones, 0.75, [1])[name][:, 0].tolist() == [0.75, 1.0, 0.75]
    assert base.mixed(zeros, ones, 0.0, [1])[name][:, 0].tolist() == [0.0, 0.0, 0.0]


def test_the_upper_layers_are_those_with_the_highest_numbers():
    names = [f"model.layers.{layer}.mlp.up_proj.MatMul.weight" for layer in (2, 10, 9)]
    weights = dict.fromkeys(["lm_head.MatMul.weight", *names])
    assert list(base.upper(weights, 2)) == names[1:]


def test_questions_name_two_languages_and_quote_the_code():
    rng = random.Random(0)
    asked = [question({"name": "inventory.py", "text": TEXT}, rng) for _ in range(100)]
    asked = [question for question in asked if question]
    assert all("Python" in question for question in asked)
    assert all(any(f"to {other}." in question for question in asked) for other in list(LANGUAGES.values())[1:])
    assert question({"name": "notes.txt", "text": TEXT}, rng) is None


@pytest.mark.parametrize(
    "prompt, begins", [("def add(a, b):\n    retu", "rn a"), ("for i in ran", "ge("), ("import os\nimport sy", "s")]
)
def test_a_hole_is_filled_from_within_a_word(prompt, begins):
    session = Session(SHIPPED)
    layout = Layout(session.tokenizer, session.order, complete.CONTEXT)
    row = {"prompt": prompt, "suffix": "\n"}
    assert complete.complete(session, layout, complete.hole_of(row)).startswith(begins)


def test_a_hole_that_is_asked_for_is_laid_out_as_one_that_is_learned():
    for order in ("spm", "psm"):
        layout = Layout(TOKENIZER, order, 256)
        for hole in held_out_holes([{"name": "inventory.py", "text": TEXT}], 4, 0):
            ids, _ = layout.prompt(dataclasses.replace(hole, middle=""))
            learned = layout.lay(hole).ids
            assert learned[: len(ids)] == ids


@pytest.mark.parametrize("order", ["spm", "psm"])
def test_a_word_that_stands_only_behind_counts_more(order):
    layout = Layout(TOKENIZER, order, 256, behind_weight=3.0)
    hole = Hole("line", "a.py", "total = 0\n", "later = total + 12 * fresh", "\nreturn later\n")
    suffix, prefix, middle = layout.parts(hole)
    texts = dict.fromkeys(SOURCES, "")
    for id, source in zip(middle, layout.sources(suffix, prefix, middle)):
        texts[source] += TOKENIZER.decode([id])
    assert texts == {"behind": "later", "before": " total", "nowhere": " fresh", "no word": " = + 12 *"}
    sample = layout.lay(hole)
    counted = [(id, weight) for id, weight in zip(sample.targets, sample.weights) if weight]
    assert [id for id, _ in counted] == [*middle, layout.end]
    assert [TOKENIZER.decode([id]) for id, weight in counted if weight == 3.0] == ["later"]


@pytest.mark.parametrize(("rank", "layers"), [(4, 2), (0, 1)])
def test_what_is_exported_is_what_was_learned(tiny, corpus, tmp_path, rank, layers):
    run, folder = tmp_path / "run", tmp_path / "model"
    assert start(corpus, run, tiny, "--order", "psm", "--rank", rank, "--layers", layers).wait() == 0
    export = [sys.executable, TRAINING / "export.py", run, folder, "--model", tiny]
    assert subprocess.run(export).returncode == 0
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    markers = [TOKENIZER.token_to_id(marker) for marker in Layout.MARKERS]
    decoder = Decoder(Graph(tiny).read(), rank, layers, markers)
    decoder.load_state_dict(state["decoder"])
    written = Graph(folder).read()
    merged = decoder.merged()
    for name, values in merged.items():
        steps = np.abs(values.reshape(len(values), -1, 64)).max(-1) / 127
        off = np.abs(written[name] - values).reshape(len(values), -1, 64).max(-1)
        assert (off <= 0.5001 * steps).all(), name
    # What was not learned is as it was.
    before = Graph(tiny).read()
    assert len(merged) == (11 if layers == 2 else 5)
    assert all((written[name] == before[name]).all() for name in before.keys() - merged.keys())
    assert 'order = "psm"' in (folder / "model.toml").read_text()
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder).returncode == 0
    assert "is there already" in subprocess.run(export, capture_output=True, text=True).stderr


def test_the_decoder_is_that_of_the_graph():
    ids = np.array([TOKENIZER.encode(TEXT).ids[:120]])
    session = onnxruntime.InferenceSession(str(SHIPPED / "model.onnx"))
    past = {
        place.name: np.zeros((1, 3, 0, HEAD), np.float32)
        for place in session.get_inputs()
        if place.name.startswith("past_key_values")
    }
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "num_logits_to_keep": np.array(0), **past}
    expected = torch.from_numpy(session.run(["logits"], given)[0])
    with torch.no_grad():
        length = ids.shape[1]
        causal = torch.ones(1, length, length, dtype=torch.bool).tril()
        logits = Decoder(Graph(SHIPPED).read(), learned=0)(torch.from_numpy(ids), torch.arange(length)[None], causal)
    losses = [torch.nn.functional.cross_entropy(l[0, :-1], torch.from_numpy(ids[0, 1:])).item() for l in (logits, expected)]
    # The graph rounds activations to 8 bits, and this does not.
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_holes_are_what_their_kind_says():
    text = "def f(x):\n    y = x\n    return y\n"
    checks = {
        "line": lambda hole: hole.prefix.endswith("\n") or not hole.prefix,
        "indented": lambda hole: hole.middle == hole.middle.lstrip() and hole.suffix.startswith("\n"),
        "rest": lambda hole: hole.suffix.startswith("\n") and "\n" not in hole.middle,
        "span": lambda hole: not hole.suffix.startswith("\n") and "\n" not in hole.middle,
        "block": lambda hole: "\n" in hole.middle,
        "opened": lambda hole: hole.prefix.endswith(":") and hole.middle.startswith("\n    ") and hole.suffix == "\n",
    }
    assert checks.keys() == KINDS.keys()
    rng = random.Random(0)
    for kind, holds in checks.items():
        for _ in range(200):
            hole = cut("a.py", text, kind, rng)
            if hole:
                assert hole.prefix + hole.middle + hole.suffix == text
                assert holds(hole), hole


@pytest.mark.parametrize(
    "text",
    [
        "if$0 a:\n    b\nelse:\n    c$1",
        "if a:\n    b$0\n\n    if c:\n        d$1\n\ne\n",
        "f() {\n  a$0;\n  b;$1\n}\n",
        "a$0$1",
    ],
)
def test_a_block_ends_before_what_is_indented_less(text):
    at, end = text.replace("$1", "").index("$0"), text.replace("$0", "").index("$1")
    assert block_end(text.replace("$0", "").replace("$1", ""), at) == end


@pytest.mark.parametrize("text", ["f() {\n  a$0;\n}$1\n", "g(\n  a,$0\n\n);$1\n", "if a:\n    b$0$1\nc\n"])
def test_a_bracket_closes_a_block_with_nothing_behind(text):
    end = text.replace("$1", "").index("$0")
    at = text.replace("$0", "").index("$1")
    clean = text.replace("$0", "").replace("$1", "")
    assert closed(clean, block_end(clean, end)) == at


def test_half_of_the_blocks_are_the_last_thing_so_far():
    layout = Layout(TOKENIZER, "spm", 320)
    stream = Stream([{"name": "inventory.py", "text": TEXT}], layout, {"block": 1.0}, 4, 0)
    last = [sample.ids[sample.ids.index(layout.suffix) + 1] == layout.prefix for sample in stream.batch(0, 60)]
    # The file's own last block is one too.
    assert 20 < sum(last) < 45


@pytest.mark.parametrize(
    ("order", "text", "expected"),
    [
        ("spm", "a\n|b|c", "<filename>a.py\n<fim_suffix>c<fim_prefix>a\n<fim_middle>b<|endoftext|>"),
        ("psm", "a\n|b|c", "<filename>a.py\n<fim_prefix>a\n<fim_suffix>c<fim_middle>b<|endoftext|>"),
        # The cursor stands in a token: it is left to the model to write again.
        ("spm", "a\n ret|urn|c", "<filename>a.py\n<fim_suffix>c<fim_prefix>a\n<fim_middle> return<|endoftext|>"),
    ],
)
def test_a_hole_is_laid_out_as_the_server_does(order, text, expected):
    layout = Layout(TOKENIZER, order, 64, 0.25)
    hole = Hole("rest", "a.py", *text.split("|"))
    sample = layout.lay(hole)
    assert TOKENIZER.decode(sample.ids, skip_special_tokens=False) == expected
    [rows] = paths(sample)
    counted = [sample.targets[row] for row in rows if sample.weights[row] == 1.0]
    assert TOKENIZER.decode(counted, skip_special_tokens=False) == expected.partition("<fim_middle>")[2]
    trunk = sample.branches.count(0)
    assert sample.weights[:trunk] == [0.25] * (trunk - 1) + [0.0]
    without = layout.lay(hole, with_suffix=False)
    assert len(without.ids) == len(sample.ids) - 1


def paths(sample):
    """For each branch the rows that its end sees, in their order: those of the trunk, then its own."""
    for number in range(1, sample.branches[-1] + 1):
        own = [row for row, branch in enumerate(sample.branches) if branch == number]
        left = [row for row, branch in enumerate(sample.branches) if branch == 0]
        rows = [row for row in left if sample.positions[row] < sample.joints[own[0]]] + own
        assert [sample.positions[row] for row in rows] == list(range(len(rows)))
        yield rows


@pytest.mark.parametrize("order", ["spm", "psm"])
def test_a_branch_of_a_tree_is_the_hole_alone(order):
    text = "def f(x):\n    value = x + 1\n    return value\n\n\nprint(f(2))\n"
    layout = Layout(TOKENIZER, order, 192, 0.25)
    tree = layout.tree("a.py", text, text.index("e\n\n") + 1, 32, random.Random(3))
    decoder = Decoder(Graph(SHIPPED).read(), learned=0)
    with torch.no_grad():
        together, _, _ = losses(decoder, [tree])
    alone = 0.0
    counted = 0
    for rows in paths(tree):
        ids = torch.tensor([[tree.ids[row] for row in rows]])
        places = torch.arange(len(rows))
        visible = (places[:, None] >= places)[None]
        with torch.no_grad():
            logits = decoder(ids, places[None], visible)[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
        middle = [place for place, row in enumerate(rows) if tree.weights[row] == 1.0]
        assert middle[-1] == len(rows) - 2 and ids[0, -1] == layout.end
        alone += loss[middle].sum().item()
        counted += len(middle)
    assert counted > 40
    weights = torch.tensor([weight for weight in tree.weights if weight])
    assert together[weights == 1.0].sum().item() == pytest.approx(alone, rel=1e-4)


def test_every_kind_is_measured_and_what_does_not_fit_is_not():
    files = [{"name": "inventory.py", "text": TEXT}]
    assert {hole.kind for hole in held_out_holes(files, 2, 0)} == set(KINDS)
    layout = Layout(TOKENIZER, "spm", 64)
    for words, fits in ((10, True), (60, False)):
        sample = layout.lay(Hole("block", "a.py", TEXT, "a\n" * words, TEXT))
        assert bool(sample) == fits and (not fits or len(sample.ids) <= 64)


def test_samples_fit_the_context_and_depend_on_seed_and_step_alone():
    layout = Layout(TOKENIZER, "spm", 96, 0.25)
    files = [{"name": "inventory.py", "text": TEXT}]
    stream = Stream(files, layout, dict.fromkeys(ENDS, 1.0), 32, 0)
    batch = stream.batch(3, 40)
    assert all(len(sample.ids) <= 96 for sample in batch)
    assert max(sample.branches[-1] for sample in batch) > 4
    assert Stream(files, layout, dict.fromkeys(ENDS, 1.0), 32, 0).batch(3, 40) == batch
    assert stream.batch(4, 40) != batch


@pytest.mark.parametrize(
    ("declared", "licence"),
    [
        (["MIT"], "MIT"),
        (["GPL-3.0 OR MIT"], "MIT"),
        (["MIT/Apache-2.0"], "MIT"),
        (["GPL-3.0-only"], None),
        (["MIT AND GPL-3.0"], None),
        (["MIT", "Apache-2.0"], "MIT"),
        (["MIT", "GPL-3.0-only"], None),
        ([""], None),
        ([], None),
    ],
)
def test_only_permissive_licences_are_taken(declared, licence):
    assert data.permitted(declared, ["MIT", "Apache-2.0"]) == licence


CODE = "".join(f"def f{n}(x):\n    return x + {n}\n\n\n" for n in range(20))


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("a.py", CODE, CODE),
        ("a.py", "# Copyright somebody\n# All rights reserved\n\n" + CODE, CODE),
        ("a.txt", CODE, None),
        ("a.min.js", CODE, None),
        ("a.js", "x" * 1000, None),
        ("a.py", "# This file is auto-generated\n" + CODE, None),
        ("a.py", "x = 1\n", None),
    ],
)
def test_what_nobody_wrote_by_hand_is_left_out(path, text, expected):
    assert data.wanted(path, text) == expected
