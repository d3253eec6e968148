"""Fine-tuning of the language model on what a log says of texts (extra `lora`): items that one user liked close in time
come close together.

Low-rank updates of the attention projections alone are learned (Hu et al. 2021, LoRA) by InfoNCE with the other pairs
of a batch as negatives (van den Oord et al. 2018, eq. 4), then merged into the weights: what is left is an ordinary
Hugging Face model. Refuses to know policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from sanderling_quantize.encoders.pooling import mean_pool, unit
from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.data.tables import Interactions
from sanderling_trainer.policy.model.language_model import LanguageModel

PROJECTIONS = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin")


@dataclass(frozen=True)
class Adaptation:
    """days: likes of one user no further apart make a pair. pairs: how many are learned, at most. rank, scale: r and α
    of LoRA. rate: of AdamW, warmed up over a tenth and then falling to 0. batch: pairs in a step; each is the others'
    negative. temperature: of InfoNCE. seed: of the pairs and their order."""

    days: float = 1.0
    pairs: int = 20_000
    rank: int = 8
    scale: int = 16
    rate: float = 5e-4
    batch: int = 64
    temperature: float = 0.05
    seed: int = 0


def pairs_of(
    log: Interactions, days: float, most: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return int64 [p, 2] rows of different items that one user liked one after the other within so many days.

    Each pair of items occurs once, in no order; `most` of them are drawn where there are more.
    """
    liked = np.flatnonzero(log.reward > 0)
    order = liked[np.lexsort((log.time[liked], log.user[liked]))]
    user, item, time = log.user[order], log.item[order], log.time[order]
    near = (user[1:] == user[:-1]) & (item[1:] != item[:-1]) & (time[1:] - time[:-1] <= days * DAY)
    found = np.unique(np.sort(np.stack([item[:-1][near], item[1:][near]], axis=1), axis=1), axis=0)
    return found[rng.permutation(len(found))[:most]]


def info_nce(left: Tensor, right: Tensor, same: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of finding each vector's partner among the batch's, both ways.

    left, right: unit vectors float [b, d]; same bool [b, b]: where right j is no negative of left i though j ≠ i.
    """
    scores = (left @ right.T / temperature).masked_fill(same, -torch.inf)
    partner = torch.arange(len(left), device=left.device)
    return (
        nn.functional.cross_entropy(scores, partner)
        + nn.functional.cross_entropy(scores.T, partner)
    ) / 2


def adapt(
    model: LanguageModel,
    texts: Sequence[str],
    pairs: NDArray[np.int64],
    settings: Adaptation = Adaptation(),
) -> list[float]:
    """Adapt a language model in place to pairs of texts, int64 [p, 2]; return the loss of each step.

    Raises ValueError where there are fewer than two pairs to tell apart, or the model has no attention projection of a
    known name.
    """
    from peft import LoraConfig, get_peft_model

    if len(pairs) < 2:
        raise ValueError(
            f"expected at least 2 pairs of items that a user liked close in time, found {len(pairs)}"
        )
    names = {
        name.rsplit(".", 1)[-1]
        for name, part in model.model.named_modules()
        if isinstance(part, nn.Linear)
    }
    if not names & set(PROJECTIONS):
        raise ValueError(
            f"expected linear layers named as one of {', '.join(PROJECTIONS)}, found {sorted(names)}"
        )
    torch.manual_seed(settings.seed)
    lora = LoraConfig(
        r=settings.rank, lora_alpha=settings.scale, target_modules=sorted(names & set(PROJECTIONS))
    )
    learner = get_peft_model(model.model, lora).train()
    losses = _descend(learner, model, texts, pairs, settings)
    model.model = learner.merge_and_unload().eval().requires_grad_(True)
    return losses


def _descend(
    learner: nn.Module,
    model: LanguageModel,
    texts: Sequence[str],
    pairs: NDArray[np.int64],
    settings: Adaptation,
) -> list[float]:
    rng = np.random.default_rng(settings.seed)
    batches = np.array_split(rng.permutation(len(pairs)), -(-len(pairs) // settings.batch))
    weights = [weight for weight in learner.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, settings.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        settings.rate,
        total_steps=len(batches) + 1,
        pct_start=0.1,
        anneal_strategy="linear",
    )
    losses = []
    for chosen in tqdm(batches, desc="adapt the language model", unit="batch"):
        left, right = pairs[chosen].T
        same = torch.from_numpy(
            (left[:, None] == right) | (right[:, None] == right) | (left[:, None] == left)
        )
        same.fill_diagonal_(False)
        vectors = _vectors(learner, model, [texts[row] for row in (*left, *right)])
        loss = info_nce(
            vectors[: len(left)],
            vectors[len(left) :],
            same.to(vectors.device),
            settings.temperature,
        )
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(loss.item())
    return losses


def _vectors(learner: nn.Module, model: LanguageModel, texts: Sequence[str]) -> Tensor:
    tokens = model.tokenizer(
        list(texts), padding=True, truncation=True, max_length=model.max_tokens, return_tensors="pt"
    ).to(next(learner.parameters()).device)
    return unit(mean_pool(learner(**tokens).last_hidden_state, tokens["attention_mask"]))
