"""From a language model's folder to encoder.onnx and tokenizer.json."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sanderling.bundle.manifest import Prefixes
from sanderling.ranking.text_encoder import NO_PREFIXES
from sanderling_quantize.encoders import text_augmentation
from sanderling_quantize.encoders.distil import distil
from sanderling_quantize.encoders.int8_search import BITS, search
from sanderling_quantize.encoders.student_config import TIERS, StudentConfig
from sanderling_quantize.encoders.teacher import Teacher

SEARCH_TEXTS = 300


@dataclass(frozen=True)
class Encoding:
    """How an encoder is built."""

    tier: str = "small"
    """base (the whole teacher in int8), small or nano: the keys of `student_config.TIERS`."""

    steps: int | None = None
    """Distillation steps; None: the tier's own."""

    target: str = "any"
    """The devices' processor, a key of `int8_search.BITS`; "any" is safe on all."""

    corpus: tuple[str, ...] = ()
    """Texts to distil on beside the catalog's."""

    seed: int = 0

    prefixes: Prefixes = NO_PREFIXES
    """What the encoder reads before a text; `build` has those of the checkpoint."""

    def __post_init__(self) -> None:
        for name, value, choices in (("tier", self.tier, TIERS), ("target", self.target, BITS)):
            if value not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, found {value!r}")

    @property
    def student_config(self) -> StudentConfig:
        """The tier's configuration, with `steps` where given and the tier is distilled at all."""
        config = TIERS[self.tier]
        if self.steps is None or not config.steps:
            return config
        return replace(config, steps=self.steps)


def build_encoder(
    language_model: Path,
    texts: Sequence[str],
    held_out: Sequence[str],
    folder: Path,
    max_tokens: int,
    encoding: Encoding,
    min_cosine: float = 0.0,
) -> list[dict[str, Any]]:
    """Write encoder.onnx and tokenizer.json for a catalog's texts into `folder`.

    Returns the int8 forms on the Pareto front, the chosen one first. No `held_out` text is trained
    on; texts are cut at `max_tokens`. A form with a cosine below `min_cosine` is chosen only where
    none has that much. Runs on the GPU where there is one.
    """
    teacher = Teacher.load(language_model, max_tokens)
    rng = np.random.default_rng(encoding.seed)
    vocabulary = teacher.student_vocabulary(_with_prefixes(encoding, texts, encoding.corpus))
    augmented = text_augmentation.augment(texts, vocabulary.words, rng, vocabulary.split)
    further = text_augmentation.without([*augmented, *encoding.corpus], held_out)
    items = [encoding.prefixes.item + text for text in texts]
    student = distil(
        teacher,
        items,
        _with_prefixes(encoding, (), further),
        encoding.student_config,
        encoding.seed,
        vocabulary,
    )

    rows = rng.permutation(len(items))[: 2 * SEARCH_TEXTS]
    tokens = vocabulary.tokenize([items[row] for row in rows], max_tokens)
    calibration = tokens[::2]
    evaluation = tokens[1::2] or tokens  # a catalog of one text
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        bits = BITS[encoding.target]
        front = search(
            student, teacher.model.config, calibration, evaluation, Path(work), bits, min_cosine
        )
        front[0].path.rename(folder / "encoder.onnx")
    vocabulary.tokenizer.save(str(folder / "tokenizer.json"))
    return [
        {
            **asdict(form.recipe),
            "bytes": form.bytes,
            "us": form.us,
            "neighbours": form.neighbours,
            "cosine": form.cosine,
        }
        for form in front
    ]


def _with_prefixes(encoding: Encoding, items: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return texts of items, and others of which every second one is read as a query."""
    prefixes = encoding.prefixes
    in_turns = [prefixes.item, prefixes.query]
    return [
        *(prefixes.item + text for text in items),
        *(in_turns[row % 2] + text for row, text in enumerate(others)),
    ]
