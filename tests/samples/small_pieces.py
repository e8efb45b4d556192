"""Writes small_pieces.json: a small vocabulary that SentencePiece has trained, in the form in which
GGUF stores it, and the ids that SentencePiece gives to some lines. Run it in this folder with
sentencepiece 0.2.3 and protobuf:

    python small_pieces.py
"""

import io
import json
import pathlib

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

HERE = pathlib.Path(__file__).parent
LINES = [
    line
    for path in sorted(HERE.glob("shapes.*"))
    for line in path.read_text().splitlines()
]
# What no sample has: runs of spaces, other scripts, bytes that are no piece, markers.
LINES += [
    "",
    " ",
    "     ",
    "\t\tif x:\n\t\t\treturn  y\n\n\n",
    "    a   =   b    ",
    "one\r\ntwo\n",
    "naïve café — “quoted”",
    "日本語のテキスト",
    "emoji 😀👩‍👩‍👧 done",
    "e\u0301 \u00e9",
    "\u2581 is the sign itself",
    "\x00\x01\x7f",
    "<s> </s> <unk> <0x0A>",
    "<|fim_prefix|>x<|fim_suffix|>",
    "retreturnreturned areaarea",
]


def main():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=560,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_by_whitespace=True,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        user_defined_symbols=["\n", "\n\n", "▁▁▁▁"],
        control_symbols=["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"],
        hard_vocab_limit=False,
        num_threads=1,
    )
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    # Interline encodes the middle of texts, so it leaves this out.
    proto.normalizer_spec.add_dummy_prefix = False
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    result = {
        # GGUF's numbers of the kinds are SentencePiece's.
        "pieces": [[piece.piece, piece.score, piece.type] for piece in proto.pieces],
        "texts": [[line, processor.encode(line)] for line in LINES],
    }
    text = json.dumps(result, ensure_ascii=True, separators=(",", ":"))
    (HERE / "small_pieces.json").write_text(text.replace('],["', '],\n["') + "\n")


main()
