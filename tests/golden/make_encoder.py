"""Writes the small encoder of the tests: `python tests/golden/make_encoder.py`; it needs `onnx`.

input_ids, attention_mask int64 [b, s] -> vector float32 [b, 16]: look up, masked mean, L2
normalise. Inputs, output and tokenizer format are those of a distilled encoder, in 30 kB.
"""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

FOLDER = Path(__file__).parent
DIM = 16
INPUTS = ("input_ids", "attention_mask")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = """
a and at by for from in of on the to with
red green blue black white grey yellow orange pink brown
big small light heavy warm cold dry wet soft hard old new fast slow long short quiet loud
shoe boot sandal trail road running walking hiking jacket coat shirt sock hat glove scarf bag pack
tent stove lamp
book novel poem story history travel guide map atlas cook garden science music art
film drama comedy thriller horror romance documentary western mystery adventure animation
song album jazz rock folk pop soul blues classical piano guitar violin drum
morning evening night sunday monday friday weekend summer winter spring autumn rainy sunny windy
snow
bird sea sand shore wave tide island river lake forest mountain
coffee tea bread cheese apple lemon pasta soup
"""
VOCABULARY = [
    *SPECIAL,
    *string.ascii_lowercase,
    *(f"##{c}" for c in string.ascii_lowercase),
    *WORDS.split()[1:],
]


def make_encoder() -> onnx.ModelProto:
    """Build the graph with a fixed random table; every row differs, so that every word counts."""
    table = np.random.default_rng(0).standard_normal((len(VOCABULARY), DIM)).astype(np.float32)
    constants = {
        "table": table,
        "tokens": np.array([1], np.int64),
        "last": np.array([2], np.int64),
        "one": np.array(1, np.float32),
        "tiny": np.array(1e-12, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["looked"]),
        helper.make_node("Cast", ["attention_mask"], ["flat"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["flat", "last"], ["mask"]),
        helper.make_node("Mul", ["looked", "mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "tokens"], ["count"], keepdims=0),
        helper.make_node("Max", ["count", "one"], ["divisor"]),
        helper.make_node("Div", ["sum", "divisor"], ["mean"]),
        helper.make_node("ReduceL2", ["mean"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Max", ["length", "tiny"], ["norm"]),
        helper.make_node("Div", ["mean", "norm"], ["vector"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["b", DIM])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def make_tokenizer() -> Tokenizer:
    """Return a lower-cased WordPiece tokenizer that has a piece for every Latin letter."""
    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", SPECIAL.index("[CLS]")), ("[SEP]", SPECIAL.index("[SEP]"))],
    )
    return tokenizer


if __name__ == "__main__":
    onnx.save(make_encoder(), FOLDER / "encoder.onnx")
    make_tokenizer().save(str(FOLDER / "tokenizer.json"), pretty=False)
