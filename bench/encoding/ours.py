"""The encoders of the three tiers, made by the product's own code on the benchmark's texts, and kept in a folder.

Refuses to know peers.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from bench.encoding.corpus import Corpus
from bench.encoding.teacher import Teacher
from sanderling_quantize.encoders.distil import distil
from sanderling_quantize.encoders.int8_search import Int8Candidate, search
from sanderling_quantize.encoders.student import Student
from sanderling_quantize.encoders.student_config import TIERS
from sanderling_quantize.encoders.tokenization import tokenize

MAX_TOKENS, JUDGED = 64, 300
STEPS = {"base": 0, "small": 13_000, "nano": 30_000}


def student(tier: str, teacher: Teacher, corpus: Corpus, folder: Path) -> Student:
    """Return the float student of a tier, distilled once and then read from the folder."""
    path = folder / f"{tier}-{STEPS[tier]}.pt"
    if not path.exists():
        start, shape = time.perf_counter(), replace(TIERS[tier], steps=STEPS[tier])
        made = distil(
            teacher.model, teacher.tokenizer, corpus.own, corpus.further, shape, MAX_TOKENS, 0
        )
        print(f"{tier}: distilled in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(made, path)
    found: Student = torch.load(path, weights_only=False)
    return found


def forms(
    tier: str, bits: int, teacher: Teacher, corpus: Corpus, folder: Path
) -> list[Int8Candidate]:
    """Return the tier's Pareto front, the winner first; its channels are measured and its forms compared on texts that
    the student was trained on."""
    work = folder / f"{tier}-{bits}-bit"
    work.mkdir(parents=True, exist_ok=True)
    texts = corpus.own[:: max(1, len(corpus.own) // (2 * JUDGED))]
    tokens = tokenize(teacher.tokenizer, texts, MAX_TOKENS)
    made = student(tier, teacher, corpus, folder)
    return search(made, teacher.model.config, tokens[::2], tokens[1::2], work, bits)
