"""A small student that gives texts the teacher's vectors, trained on its answers.

Loss: 1 - cosine to the teacher's vector, plus the squared difference of the batch's similarity matrices (Tung and Mori
2019, arXiv:1907.09682). Texts are tokenized once, and a batch holds texts of like length. Where the processor
multiplies bfloat16 natively, so does the training. Refuses to know items and policies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sanderling_quantize.encoders import student_init
from sanderling_quantize.encoders.student import Student, mean, unit
from sanderling_quantize.encoders.student_config import Shape
from sanderling_quantize.encoders.tokenization import Tokens, batches, padded, tokenize

BATCH = 64
DRAWS = 16
JITTER = 3.0
OWN = 5
MEASURED = 512
WARM_UP = 0.05
SIMILARITY = 5.0

Vectors = NDArray[np.float32]


def distil(
    teacher: Any,
    tokenizer: Any,
    texts: Sequence[str],
    further: Sequence[str],
    shape: Shape,
    max_tokens: int,
    seed: int,
) -> Student:
    """Return a student of a BERT-like teacher, trained where the teacher is; a fifth of what it sees are `texts` alone,
    the rest any of all. Raises `ValueError` for another kind of teacher."""
    student_init.check(teacher)
    shape, rng = shape.within(teacher.config), np.random.default_rng(seed)
    corpus = list(dict.fromkeys([*texts, *further]))
    tokens = tokenize(tokenizer, corpus, max_tokens)
    some = [tokens[at] for at in rng.permutation(len(tokens))[:MEASURED]]
    student = student_init.inherit(
        teacher, shape, student_init.measure(teacher, some), max_tokens, seed
    )
    if shape.steps:
        own = np.arange(len(dict.fromkeys(texts)))
        _train(student, teacher, tokens, own, shape, rng)
    return student.cpu().eval()


@torch.inference_mode()
def teach(teacher: Any, tokens: Sequence[Tokens]) -> Vectors:
    """Return the teacher's unit vectors float32 [n, t], computed as the training is."""
    device = next(teacher.parameters()).device
    out = np.empty((len(tokens), teacher.config.hidden_size), np.float32)
    rounds = tqdm(
        batches(tokens, device),
        desc="teacher",
        total=-(-len(tokens) // BATCH),
        unit="batch",
        leave=False,
    )
    for ids, mask, chosen in rounds:
        with _native_bfloat16(device):
            hidden = teacher(input_ids=ids, attention_mask=mask).last_hidden_state
        out[chosen] = unit(mean(hidden.float(), mask)).cpu().numpy()
    return out


def _train(
    student: Student,
    teacher: Any,
    tokens: list[Tokens],
    own: NDArray[np.int64],
    shape: Shape,
    rng: np.random.Generator,
) -> None:
    device = next(teacher.parameters()).device
    answers = torch.from_numpy(teach(teacher, tokens)).to(device)
    student.to(device).train()
    optimiser = torch.optim.AdamW(
        student.parameters(), shape.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(_rate, steps=shape.steps))
    draws = _draws(tokens, own, rng)
    with tqdm(range(shape.steps), desc="distil", unit="step") as bar:
        for step in bar:
            chosen = next(draws)
            ids, mask = padded([tokens[at] for at in chosen])
            with _native_bfloat16(device):
                found = student(ids.to(device), mask.to(device))
            loss = _loss(found.float(), answers[torch.from_numpy(chosen).to(device)])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            if step % 10 == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}")


def _draws(
    tokens: list[Tokens], own: NDArray[np.int64], rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield batches of texts of like length, for ever: a fifth is drawn from the catalogue's own."""
    lengths = np.array([len(one) for one in tokens])
    count = BATCH * DRAWS
    while True:
        drawn = np.concatenate(
            [rng.choice(own, count // OWN), rng.integers(0, len(tokens), count - count // OWN)]
        )
        order = drawn[np.argsort(lengths[drawn] + rng.uniform(0, JITTER, count), kind="stable")]
        yield from rng.permutation(order.reshape(DRAWS, BATCH))


def _rate(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: up in a straight line, then down along a cosine."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1, steps - warm))


def _loss(student: Tensor, teacher: Tensor) -> Tensor:
    cosine = 1.0 - (student * teacher).sum(-1).mean()
    similarity = ((student @ student.T) - (teacher @ teacher.T)).square().mean()
    return cosine + SIMILARITY * similarity


def _native_bfloat16(device: torch.device) -> torch.autocast:
    """Elsewhere, on a CPU without AVX512-BF16 or an old GPU, bfloat16 is slower than float32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = bool(torch.cpu._is_avx512_bf16_supported())
    return torch.autocast(device.type, torch.bfloat16, enabled=native)
