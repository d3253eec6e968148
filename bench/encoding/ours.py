"""The encoders of the three tiers, built by the product's own code on the benchmark's texts."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from bench.encoding.corpus import Corpus
from sanderling_quantize.encoders.distil import distil
from sanderling_quantize.encoders.int8_search import Int8Candidate, search
from sanderling_quantize.encoders.student import Student
from sanderling_quantize.encoders.student_config import TIERS
from sanderling_quantize.encoders.teacher import Teacher

SEARCH_TEXTS = 300
STEPS = {"base": 0, "small": 13_000, "nano": 30_000}


def load_student(tier: str, teacher: Teacher, corpus: Corpus, folder: Path) -> Student:
    """Return the float student of a tier, distilled once and then read from the folder."""
    path = folder / f"{tier}-{STEPS[tier]}.pt"
    if not path.exists():
        start = time.perf_counter()
        config = replace(TIERS[tier], steps=STEPS[tier])
        distilled = distil(teacher, corpus.own, corpus.augmented, config, seed=0)
        print(f"{tier}: distilled in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(distilled, path)
    student: Student = torch.load(path, weights_only=False)
    return student


def int8_forms(
    tier: str, bits: int, teacher: Teacher, corpus: Corpus, folder: Path
) -> list[Int8Candidate]:
    """Return the tier's Pareto front, the chosen form first.

    Channels are measured and forms compared on texts that the student was trained on.
    """
    work = folder / f"{tier}-{bits}-bit"
    work.mkdir(parents=True, exist_ok=True)
    texts = corpus.own[:: max(1, len(corpus.own) // (2 * SEARCH_TEXTS))]
    tokens = teacher.tokenize(texts)
    student = load_student(tier, teacher, corpus, folder)
    return search(student, teacher.model.config, tokens[::2], tokens[1::2], work, bits)
