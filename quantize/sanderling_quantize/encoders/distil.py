"""Distils a small student that gives texts the teacher's vectors.

Loss: 1 - cosine to the teacher's vector, plus the mean squared difference of the batch's similarity
matrices (Tung and Mori 2019, arXiv:1907.09682).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR
from tqdm import tqdm

from sanderling_quantize.encoders import student_init
from sanderling_quantize.encoders.architecture import check_architecture
from sanderling_quantize.encoders.student import Student
from sanderling_quantize.encoders.student_config import StudentConfig
from sanderling_quantize.encoders.teacher import Teacher, native_bfloat16
from sanderling_quantize.encoders.tokenization import Tokens, pad
from sanderling_quantize.encoders.vocabulary import Vocabulary

BATCH = 64
BATCHES_A_DRAW = 16
LENGTH_JITTER = 3.0  # tokens; batches of equal lengths only would always hold the same texts
CATALOG_SHARE = 1 / 5
MEASURED_TEXTS = 512
WARM_UP = 0.05
SIMILARITY_WEIGHT = 5.0


def distil(
    teacher: Teacher,
    texts: Sequence[str],
    augmented: Sequence[str],
    config: StudentConfig,
    seed: int,
    vocabulary: Vocabulary | None = None,
) -> Student:
    """Return a student on the CPU, trained on the teacher's device.

    A fifth of what it is trained on is drawn from the catalog's `texts` alone, the rest from all
    texts. The student reads them by `vocabulary`, its teacher by its own; without one by the same.
    Raises `ValueError` for a teacher that is not built like BERT.
    """
    check_architecture(teacher.model.config.to_dict(), "the checkpoint's encoder")
    config = config.limited_to(teacher.model.config)
    rng = np.random.default_rng(seed)

    corpus = list(dict.fromkeys([*texts, *augmented]))
    tokens = teacher.tokenize(corpus)
    measured = [tokens[row] for row in rng.permutation(len(tokens))[:MEASURED_TEXTS]]
    importance = student_init.measure_importance(teacher, measured)
    rows = None if vocabulary is None else vocabulary.rows
    student = student_init.init_student(teacher, config, importance, seed, rows)

    if config.steps:
        targets = torch.from_numpy(teacher.encode(tokens)).to(teacher.device)
        if vocabulary is not None:
            tokens = vocabulary.tokenize(corpus, teacher.max_tokens)
        n_catalog = len(dict.fromkeys(texts))
        _train(student, targets, tokens, _draw_batches(tokens, n_catalog, rng), config)
    return student.cpu().eval()


def _train(
    student: Student,
    targets: Tensor,
    tokens: list[Tokens],
    draws: Iterator[NDArray[np.int64]],
    config: StudentConfig,
) -> None:
    """Train a student on its tokens of texts, to unit vectors `targets` [n, t]."""
    device = targets.device
    student.to(device).train()
    optimizer = torch.optim.AdamW(
        student.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = _schedule(optimizer, config.steps)

    with tqdm(range(config.steps), desc="distil", unit="step") as progress:
        for step in progress:
            rows = next(draws)
            ids, mask = pad([tokens[row] for row in rows])
            with native_bfloat16(device):
                vectors = student(ids.to(device), mask.to(device))
            loss = _loss(vectors.float(), targets[torch.from_numpy(rows).to(device)])

            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % 10 == 0:
                progress.set_postfix(loss=f"{loss.item():.4f}")


def _draw_batches(
    tokens: list[Tokens], n_catalog: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield batches of rows of `tokens`, of similar length, without end.

    The first `n_catalog` rows are the catalog's own texts.
    """
    lengths = np.array([len(text) for text in tokens])
    count = BATCH * BATCHES_A_DRAW
    from_catalog = int(count * CATALOG_SHARE)
    while True:
        catalog_rows = rng.choice(np.arange(n_catalog), from_catalog)
        all_rows = rng.integers(0, len(tokens), count - from_catalog)
        rows = np.concatenate([catalog_rows, all_rows])
        by_length = np.argsort(lengths[rows] + rng.uniform(0, LENGTH_JITTER, count), kind="stable")
        yield from rng.permutation(rows[by_length].reshape(BATCHES_A_DRAW, BATCH))


def _schedule(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Return a learning rate that rises linearly for 5% of the steps, then falls along a cosine."""
    warm = max(1, round(WARM_UP * steps))
    rise = LinearLR(optimizer, start_factor=1 / warm, total_iters=warm - 1)
    fall = CosineAnnealingLR(optimizer, max(1, steps - warm))
    return SequentialLR(optimizer, [rise, fall], milestones=[warm])


def _loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the loss of unit vectors [b, t]."""
    distance = 1.0 - (student * teacher).sum(-1).mean()
    similarity = ((student @ student.T) - (teacher @ teacher.T)).square().mean()
    return distance + SIMILARITY_WEIGHT * similarity
