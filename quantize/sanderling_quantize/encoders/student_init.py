"""A student's first weights: the parts of its teacher that matter most, by measurement on texts.

Layers: spread evenly, first and last included. Neurons and heads: those whose output is largest (Michel et al. 2019 and
Santacroce et al. 2023 compare such scores). Width: the principal directions of the residual stream, turned at random so
that layer normalisation finds equal variances. Refuses to train.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sanderling_quantize.encoders.embedding_codes import coded
from sanderling_quantize.encoders.student import Layer, Student
from sanderling_quantize.encoders.student_config import Shape
from sanderling_quantize.encoders.tokenization import Tokens, batches

SPREAD = 0.3
BUILT_ALIKE = ("bert", "roberta", "xlm-roberta", "camembert")


@dataclass(frozen=True)
class Importance:
    """Of the teacher, over texts: size of each neuron's [layer, neurons] and head's [layer, heads] output, second
    moments of the residual stream [w, w], and how often each word occurred [v]."""

    neurons: list[Tensor]
    heads: list[Tensor]
    moments: Tensor
    words: Tensor


def check(teacher: Any) -> None:
    """Raise `ValueError` unless the teacher is built like BERT."""
    config = getattr(teacher, "config", None)
    absolute = getattr(config, "position_embedding_type", "absolute") == "absolute"
    known = (
        getattr(config, "model_type", "") in BUILT_ALIKE
        and getattr(config, "hidden_act", "") == "gelu"
    )
    if not (known and absolute):
        kinds, found = ", ".join(BUILT_ALIKE), type(teacher).__name__
        raise ValueError(
            f"expected a language model of the kinds {kinds}, absolute positions and GELU, found {found}"
        )


@torch.inference_mode()
def measure(teacher: Any, tokens: Sequence[Tokens]) -> Importance:
    """Run the teacher over texts and note what its parts contribute."""
    layers, device = teacher.encoder.layer, next(teacher.parameters()).device
    neurons = [torch.zeros(layer.output.dense.in_features, device=device) for layer in layers]
    heads = [torch.zeros(teacher.config.num_attention_heads, device=device) for _ in layers]
    hooks = []
    for at, layer in enumerate(layers):
        hooks.append(layer.output.dense.register_forward_hook(_neurons(neurons, at)))
        hooks.append(layer.attention.output.dense.register_forward_hook(_heads(heads, at)))
    moments = torch.zeros(teacher.config.hidden_size, teacher.config.hidden_size, device=device)
    for ids, mask, _ in batches(tokens, device, 1):
        found = teacher(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        stream = torch.stack(found)[:, mask.bool()].flatten(0, 1)
        moments += stream.T @ stream / len(found)
    for hook in hooks:
        hook.remove()
    words = np.bincount(
        np.concatenate([*tokens, []]).astype(np.int64), minlength=len(_words(teacher))
    )
    return Importance(
        [
            one.cpu() * layer.output.dense.weight.norm(dim=0).cpu()
            for one, layer in zip(neurons, layers, strict=True)
        ],
        [one.cpu() for one in heads],
        moments.cpu() / max(1, sum(map(len, tokens))),
        torch.from_numpy(words).float(),
    )


def spread_layers(count: int, layers: int) -> list[int]:
    """Return which of `count` layers a student of `layers` starts from: spread evenly."""
    return [round(at) for at in np.linspace(0, count - 1, layers)] if layers > 1 else [0]


@torch.no_grad()
def inherit(
    teacher: Any, shape: Shape, importance: Importance, max_tokens: int, seed: int
) -> Student:
    """Return the student, on the CPU, of a shape that lies within the teacher's."""
    teacher, config, generator = (
        copy.deepcopy(teacher).cpu(),
        teacher.config,
        torch.Generator().manual_seed(seed),
    )
    basis = _basis(importance.moments, shape.width, generator)
    table = _words(teacher).detach() @ basis
    words: nn.Module = nn.Embedding.from_pretrained(table, freeze=False)
    if shape.group:
        words = coded(table, importance.words.sqrt() + SPREAD, shape.group, seed)
    chosen = spread_layers(config.num_hidden_layers, shape.layers)
    layers = [
        _layer(
            teacher.encoder.layer[at],
            shape,
            importance.heads[at],
            importance.neurons[at],
            basis,
            config,
        )
        for at in chosen
    ]
    positions = _positions(teacher, max_tokens) @ basis
    student = Student(words, positions, config.layer_norm_eps, layers, config.hidden_size)
    if student.out is None:
        student.embedded.load_state_dict(teacher.embeddings.LayerNorm.state_dict())
    else:
        spread = (torch.trace(basis.T @ importance.moments @ basis) / shape.width).sqrt()
        student.out.weight.copy_(basis * spread)
        student.out.bias.zero_()
    return student


def _neurons(sums: list[Tensor], at: int) -> Any:
    def note(module: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> None:
        sums[at] += given[0].abs().sum((0, 1))

    return note


def _heads(sums: list[Tensor], at: int) -> Any:
    def note(module: nn.Linear, given: tuple[Tensor, ...], _: Tensor) -> None:
        parts = zip(
            given[0].chunk(len(sums[at]), -1), module.weight.chunk(len(sums[at]), 1), strict=True
        )
        sums[at] += torch.stack([(part @ weight.T).norm(dim=-1).sum() for part, weight in parts])

    return note


def _words(teacher: Any) -> Tensor:
    weight: Tensor = teacher.embeddings.word_embeddings.weight
    return weight


def _positions(teacher: Any, max_tokens: int) -> Tensor:
    """RoBERTa counts positions from behind the padding's number; the only token type is added once for all."""
    table = teacher.embeddings.position_embeddings
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    if len(table.weight) - first < max_tokens:
        raise ValueError(
            f"expected a language model of at least {max_tokens} positions, found {len(table.weight) - first}"
        )
    found: Tensor = (
        table.weight[first : first + max_tokens]
        + teacher.embeddings.token_type_embeddings.weight[0]
    )
    return found.detach()


def _basis(moments: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Return orthonormal directions [w, width] that carry most of the stream, turned at random among themselves."""
    if width == len(moments):
        return torch.eye(width)
    directions = torch.linalg.eigh(moments)[1].flip(1)[:, :width]
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    return directions @ turn


def _layer(
    source: Any, shape: Shape, heads: Tensor, neurons: Tensor, basis: Tensor, config: Any
) -> Layer:
    depth = config.hidden_size // config.num_attention_heads
    layer = Layer(shape.width, shape.heads, depth, shape.neurons, config.layer_norm_eps)
    own, attention = heads.topk(shape.heads).indices.sort().values, source.attention
    rows = (own[:, None] * depth + torch.arange(depth)).flatten()
    parts = [attention.self.query, attention.self.key, attention.self.value]
    scales = [depth**-0.5, 1.0, 1.0]
    _set(
        layer.attend,
        torch.cat(
            [part.weight[rows] @ basis * scale for part, scale in zip(parts, scales, strict=True)]
        ),
        torch.cat([part.bias[rows] * scale for part, scale in zip(parts, scales, strict=True)]),
    )
    _set(
        layer.merge,
        basis.T @ attention.output.dense.weight[:, rows],
        attention.output.dense.bias @ basis,
    )
    kept = neurons.topk(shape.neurons).indices.sort().values
    expand, contract = source.intermediate.dense, source.output.dense
    _set(layer.expand, expand.weight[kept] @ basis, expand.bias[kept])
    _set(layer.contract, basis.T @ contract.weight[:, kept], contract.bias @ basis)
    if shape.width == config.hidden_size:
        layer.merged.load_state_dict(attention.output.LayerNorm.state_dict())
        layer.contracted.load_state_dict(source.output.LayerNorm.state_dict())
    return layer


def _set(target: Any, weight: Tensor, bias: Tensor) -> None:
    target.weight.copy_(weight)
    target.bias.copy_(bias)
