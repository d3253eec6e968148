"""Fine-tunes the language model on a log (extra `lora`): items that a user liked close in
time move together.

Only low-rank updates of the attention projections are trained (Hu et al. 2021, LoRA), by InfoNCE
with the other pairs of a batch as negatives (van den Oord et al. 2018, eq. 4). They are then merged
into the weights, so that the result is an ordinary Hugging Face model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.data.tables import Interactions
from sanderling_trainer.policy.model.language_model import LanguageModel

PROJECTIONS = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin")


@dataclass(frozen=True)
class LoraSettings:
    """Settings of the fine-tuning."""

    days: float = 1.0
    """Likes of one user no further apart form a pair."""

    pairs: int = 20_000
    """Maximal number of pairs."""

    rank: int = 8
    """r of LoRA."""

    scale: int = 16
    """α of LoRA."""

    rate: float = 5e-4
    """Peak learning rate of AdamW: linear warm-up over a tenth of the steps, then linear to 0."""

    batch: int = 64
    """Pairs in a step; each is a negative of the others."""

    temperature: float = 0.05
    """Of InfoNCE."""

    seed: int = 0
    """Of the pairs and their order."""


def pairs_of(
    log: Interactions, days: float, max_pairs: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return int64 [p, 2] catalog rows of items that a user liked one after the other.

    Within `days` of each other. Each unordered pair occurs once; where there are more than
    `max_pairs`, so many are drawn.
    """
    liked = np.flatnonzero(log.reward > 0)
    order = liked[np.lexsort((log.time[liked], log.user[liked]))]
    user = log.user[order]
    item = log.item[order]
    time = log.time[order]

    same_user = user[1:] == user[:-1]
    near = same_user & (item[1:] != item[:-1]) & (time[1:] - time[:-1] <= days * DAY)
    ordered = np.sort(np.stack([item[:-1][near], item[1:][near]], axis=1), axis=1)
    pairs = np.unique(ordered, axis=0)
    return pairs[rng.permutation(len(pairs))[:max_pairs]]


def info_nce(left: Tensor, right: Tensor, same: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of finding each vector's partner in the batch,
    in both directions.

    left, right: unit vectors float [b, d].
    same: bool [b, b], where right j must not be a negative of left i although j ≠ i.
    """
    scores = (left @ right.T / temperature).masked_fill(same, -torch.inf)
    partner = torch.arange(len(left), device=left.device)
    left_to_right = nn.functional.cross_entropy(scores, partner)
    right_to_left = nn.functional.cross_entropy(scores.T, partner)
    return (left_to_right + right_to_left) / 2


def fine_tune(
    model: LanguageModel,
    texts: Sequence[str],
    pairs: NDArray[np.int64],
    settings: LoraSettings = LoraSettings(),
) -> list[float]:
    """Fine-tune a language model in place on pairs of texts, int64 [p, 2]; return the
    loss of each step.

    Raises ValueError where there are fewer than two pairs, or no attention projection of the
    model has a known name.
    """
    from peft import LoraConfig, get_peft_model

    if len(pairs) < 2:
        raise ValueError(
            "expected at least 2 pairs of items that a user liked close in time,"
            f" found {len(pairs)}; train without --lora"
        )
    names = {
        name.rsplit(".", 1)[-1]
        for name, part in model.model.named_modules()
        if isinstance(part, nn.Linear)
    }
    if not names & set(PROJECTIONS):
        raise ValueError(
            f"expected linear layers named as one of {', '.join(PROJECTIONS)},"
            f" found {sorted(names)};"
            " use another language model, or train without --lora"
        )
    projections = sorted(names & set(PROJECTIONS))

    torch.manual_seed(settings.seed)
    lora = LoraConfig(r=settings.rank, lora_alpha=settings.scale, target_modules=projections)
    wrapped = get_peft_model(model.model, lora).train()
    losses = _run_epoch(wrapped, model, texts, pairs, settings)
    model.model = wrapped.merge_and_unload().eval().requires_grad_(True)
    return losses


def _run_epoch(
    wrapped: nn.Module,
    model: LanguageModel,
    texts: Sequence[str],
    pairs: NDArray[np.int64],
    settings: LoraSettings,
) -> list[float]:
    """Take one pass over the pairs in random order; return the loss of each step."""
    rng = np.random.default_rng(settings.seed)
    batches = np.array_split(rng.permutation(len(pairs)), -(-len(pairs) // settings.batch))
    weights = [weight for weight in wrapped.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, settings.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        settings.rate,
        total_steps=len(batches) + 1,
        pct_start=0.1,
        anneal_strategy="linear",
    )

    losses = []
    for chosen in tqdm(batches, desc="fine-tune the language model", unit="batch"):
        left, right = pairs[chosen].T
        vectors = model.encode_batch(wrapped, [texts[row] for row in (*left, *right)])
        loss = info_nce(
            vectors[: len(left)],
            vectors[len(left) :],
            _not_negative(left, right).to(vectors.device),
            settings.temperature,
        )

        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(loss.item())
    return losses


def _not_negative(left: NDArray[np.int64], right: NDArray[np.int64]) -> Tensor:
    """Return where an item of another pair equals one of this pair, bool [b, b],
    False on the diagonal.
    """
    same = (left[:, None] == right) | (right[:, None] == right) | (left[:, None] == left)
    np.fill_diagonal(same, False)
    return torch.from_numpy(same)
