"""From a language model's folder to encoder.onnx and tokenizer.json. Refuses to know items and policies."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from sanderling_quantize.encoders import text_augmentation as more
from sanderling_quantize.encoders.distil import distil
from sanderling_quantize.encoders.int8_search import BITS, search
from sanderling_quantize.encoders.student_config import TIERS
from sanderling_quantize.encoders.tokenization import tokenize

JUDGED = 300


@dataclass(frozen=True)
class Encoding:
    """How an encoder is made.

    tier: base (the whole teacher in int8), small or nano (students), see `shape.TIERS`; steps: of distillation, if not
    the tier's own; target: the processor, "any" is safe on every one; corpus: further texts to learn from; seed: of
    everything random.
    """

    tier: str = "small"
    steps: int | None = None
    target: str = "any"
    corpus: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (("tier", self.tier, TIERS), ("target", self.target, BITS)):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, found {value!r}")


def make(
    language_model: Path,
    texts: Sequence[str],
    unseen: Sequence[str],
    folder: Path,
    max_tokens: int,
    encoding: Encoding,
) -> list[dict[str, Any]]:
    """Write encoder.onnx and tokenizer.json for a catalogue's texts into `folder`; return the forms that were weighed.

    No `unseen` text is learned from; texts are cut at `max_tokens`. Runs on the GPU where there is one.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = AutoModel.from_pretrained(language_model).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    shape = TIERS[encoding.tier]
    shape = (
        shape if encoding.steps is None or not shape.steps else replace(shape, steps=encoding.steps)
    )
    rng = np.random.default_rng(encoding.seed)
    further = more.unlike(
        [*more.further(texts, tokenizer.get_vocab(), rng), *encoding.corpus], unseen
    )
    student = distil(teacher, tokenizer, texts, further, shape, max_tokens, encoding.seed)
    some = tokenize(
        tokenizer, [texts[at] for at in rng.permutation(len(texts))[: 2 * JUDGED]], max_tokens
    )
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        front = search(
            student,
            teacher.config,
            some[::2],
            some[1::2] or some,
            Path(work),
            BITS[encoding.target],
        )
        front[0].path.rename(folder / "encoder.onnx")
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return [
        {**asdict(one.recipe), "bytes": one.bytes, "us": one.us, "neighbours": one.neighbours}
        for one in front
    ]
