"""A small student that gives texts the teacher's vectors: the teacher's own outer layers, trained on its answers.

Loss: 1 - cosine to the teacher's vector, plus the squared difference of the batch's similarity matrices (Tung and Mori
2019, arXiv:1907.09682). The word embeddings stay as the teacher has them. Refuses to know items and policies.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from sanderling_quantize.texts import variants


@dataclass(frozen=True)
class Distillation:
    """`layers` of the teacher to keep; `steps` of `batch` texts of `max_tokens`; the peak `learning_rate`; `seed`."""

    layers: int = 2
    steps: int = 400
    batch: int = 48
    learning_rate: float = 3e-4
    max_tokens: int = 64
    seed: int = 0


class Encoder(nn.Module):
    """A transformer with its pooling: token ids and mask, int64 [b, s], -> unit vectors float32 [b, t]."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean over the tokens, scaled to length 1."""
        hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return mean / mean.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def outer_layers(count: int, layers: int) -> list[int]:
    """Return which of `count` layers a student of `layers` starts from: spread evenly, first and last included."""
    return [round(at) for at in np.linspace(0, count - 1, layers)] if layers > 1 else [0]


def distil(teacher: Any, tokenizer: Any, texts: Sequence[str], settings: Distillation) -> Encoder:
    """Train a student of a BERT-like teacher on texts and variants of them; runs where the teacher is."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    device = next(teacher.parameters()).device
    student = Encoder(_shrink(teacher, settings.layers)).train()
    student.transformer.embeddings.requires_grad_(False)
    corpus = list(dict.fromkeys([*texts, *variants(texts, rng)]))
    wanted = torch.from_numpy(encode(Encoder(teacher).eval(), tokenizer, corpus, settings, "teacher's answers")).to(
        device
    )
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, total_steps=settings.steps)
    with tqdm(range(settings.steps), desc="distil", unit="step") as bar:
        for step in bar:
            chosen = rng.integers(0, len(corpus), settings.batch)
            tokens = _tokens(tokenizer, [corpus[at] for at in chosen], settings.max_tokens, device)
            loss = _loss(student(**tokens), wanted[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            if step % 10 == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}")
    return student.eval()


@torch.inference_mode()
def encode(
    encoder: Encoder, tokenizer: Any, texts: Sequence[str], settings: Distillation, label: str = "encode"
) -> NDArray[np.float32]:
    """Return unit vectors float32 [n, t] in the order of the texts."""
    device = next(encoder.parameters()).device
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    out: NDArray[np.float32] | None = None
    for start in tqdm(range(0, len(order), 64), desc=label, unit="batch", leave=False):
        chosen = order[start : start + 64]
        vectors = encoder(**_tokens(tokenizer, [texts[at] for at in chosen], settings.max_tokens, device)).cpu().numpy()
        out = np.empty((len(texts), vectors.shape[1]), np.float32) if out is None else out
        out[chosen] = vectors
    return out if out is not None else np.empty((0, 0), np.float32)


def _loss(student: Tensor, teacher: Tensor) -> Tensor:
    cosine = 1.0 - (student * teacher).sum(-1).mean()
    similarity = ((student @ student.T) - (teacher @ teacher.T)).square().mean()
    return cosine + 5.0 * similarity


def _shrink(teacher: Any, layers: int) -> Any:
    student = copy.deepcopy(teacher)
    kept = outer_layers(len(teacher.encoder.layer), layers)
    student.encoder.layer = nn.ModuleList([student.encoder.layer[at] for at in kept])
    student.config.num_hidden_layers = layers
    student.pooler = None
    return student


def _tokens(tokenizer: Any, texts: Sequence[str], max_tokens: int, device: torch.device) -> dict[str, Tensor]:
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
    return {name: tokens[name].to(device) for name in ("input_ids", "attention_mask")}
