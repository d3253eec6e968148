"""Initializes a student with the parts of its teacher that matter most, measured on texts.

Layers: spread evenly, first and last included. Neurons and heads: those with the largest output
(Michel et al. 2019 and Santacroce et al. 2023 compare such scores). Width: the principal directions
of the residual stream, rotated at random so that layer normalization finds equal variances.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sanderling_quantize.encoders.embedding_codes import encode_table
from sanderling_quantize.encoders.student import Layer, Student
from sanderling_quantize.encoders.student_config import StudentConfig
from sanderling_quantize.encoders.teacher import Teacher
from sanderling_quantize.encoders.tokenization import Tokens, unpadded_batches

# Weight of a word that no measured text has, beside the square roots of the others' counts:
# such words occur on devices too.
UNSEEN_WORD_WEIGHT = 0.3


@dataclass(frozen=True)
class Importance:
    """How much a teacher's parts contribute to its output over texts."""

    neurons: list[Tensor]
    """For each layer the size of each neuron's output, [neurons]."""

    heads: list[Tensor]
    """For each layer the size of each attention head's output, [heads]."""

    moments: Tensor
    """Second moments of the residual stream, [w, w]."""

    word_counts: Tensor
    """How often each word of the vocabulary occurred, [v]."""


@torch.inference_mode()
def measure_importance(teacher: Teacher, tokens: Sequence[Tokens]) -> Importance:
    """Run the teacher over texts and measure what its parts contribute."""
    model = teacher.model
    device = teacher.device
    layers = model.encoder.layer
    width = model.config.hidden_size
    neurons = [torch.zeros(layer.output.dense.in_features, device=device) for layer in layers]
    heads = [torch.zeros(model.config.num_attention_heads, device=device) for _ in layers]
    hooks = []
    for layer, neuron_sums, head_sums in zip(layers, neurons, heads, strict=True):
        hooks.append(layer.output.dense.register_forward_hook(_add_neurons(neuron_sums)))
        hooks.append(layer.attention.output.dense.register_forward_hook(_add_heads(head_sums)))

    moments = torch.zeros(width, width, device=device)
    # without padding, which the hooks would count too
    for ids, mask in unpadded_batches(tokens, device):
        states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        stream = torch.stack(states).flatten(0, 2)
        moments += stream.T @ stream / len(states)
    for hook in hooks:
        hook.remove()

    words = np.concatenate([*tokens, []]).astype(np.int64)
    return Importance(
        neurons=[
            sums.cpu() * layer.output.dense.weight.norm(dim=0).cpu()
            for sums, layer in zip(neurons, layers, strict=True)
        ],
        heads=[sums.cpu() for sums in heads],
        moments=moments.cpu() / max(1, sum(map(len, tokens))),
        word_counts=torch.from_numpy(np.bincount(words, minlength=len(_words(model)))).float(),
    )


def spread_layers(count: int, layers: int) -> list[int]:
    """Return which of `count` layers a student of `layers` layers starts from, spread evenly."""
    return [round(index) for index in np.linspace(0, count - 1, layers)] if layers > 1 else [0]


@torch.no_grad()
def init_student(
    teacher: Teacher,
    config: StudentConfig,
    importance: Importance,
    seed: int,
    rows: NDArray[np.int64] | None = None,
) -> Student:
    """Return an untrained student, on the CPU; `config` must be limited to the teacher's sizes.

    rows: of the teacher's table of words, those that the student keeps; all by default.
    """
    model = copy.deepcopy(teacher.model).cpu()
    generator = torch.Generator().manual_seed(seed)
    basis = _basis(importance.moments, config.width, generator)

    kept = torch.arange(len(_words(model))) if rows is None else torch.from_numpy(rows)
    table = _words(model).detach()[kept] @ basis
    words: nn.Module = nn.Embedding.from_pretrained(table, freeze=False)
    if config.group:
        weights = importance.word_counts[kept].sqrt() + UNSEEN_WORD_WEIGHT
        words = encode_table(table, weights, config.group, seed)

    layers = [
        _layer(model, number, config, importance, basis)
        for number in spread_layers(model.config.num_hidden_layers, config.layers)
    ]
    positions = _positions(model, teacher.max_tokens) @ basis
    student = Student(
        words, positions, model.config.layer_norm_eps, layers, model.config.hidden_size
    )
    if student.projection is None:
        student.embedding_norm.load_state_dict(model.embeddings.LayerNorm.state_dict())
    else:
        # The norms start at 1 in a narrower stream, so the way back to the teacher's width has to
        # restore the stream's own standard deviation.
        deviation = (torch.trace(basis.T @ importance.moments @ basis) / config.width).sqrt()
        student.projection.weight.copy_(basis * deviation)
        student.projection.bias.zero_()
    return student


def _add_neurons(sums: Tensor) -> Callable[..., None]:
    """Return a forward hook that adds the absolute activation of each neuron to `sums`."""

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sums.add_(inputs[0].abs().sum((0, 1)))

    return add


def _add_heads(sums: Tensor) -> Callable[..., None]:
    """Return a forward hook that adds the length of what each head writes to `sums`."""

    def add(module: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        contexts = inputs[0].chunk(len(sums), -1)
        weights = module.weight.chunk(len(sums), 1)
        written = [
            (context @ weight.T).norm(dim=-1).sum()
            for context, weight in zip(contexts, weights, strict=True)
        ]
        sums.add_(torch.stack(written))

    return add


def _words(model: Any) -> Tensor:
    weight: Tensor = model.embeddings.word_embeddings.weight
    return weight


def _positions(model: Any, max_tokens: int) -> Tensor:
    """Return the first positions' vectors [max_tokens, w], the one token type's added."""
    table = model.embeddings.position_embeddings
    # RoBERTa counts positions from behind the number of its padding token
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    available = len(table.weight) - first
    if available < max_tokens:
        raise ValueError(
            f"expected a language model of at least {max_tokens} positions, found {available};"
            " train the policy with fewer `max_tokens`"
        )
    token_type = model.embeddings.token_type_embeddings.weight[0]
    positions: Tensor = table.weight[first : first + max_tokens] + token_type
    return positions.detach()


def _basis(moments: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Return orthonormal directions [w, width] that carry most of the stream, rotated at random."""
    if width == len(moments):
        return torch.eye(width)
    directions = torch.linalg.eigh(moments)[1].flip(1)[:, :width]
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    return directions @ rotation


def _layer(
    model: Any, number: int, config: StudentConfig, importance: Importance, basis: Tensor
) -> Layer:
    """Return a student's layer, made of the teacher's layer of this number."""
    source = model.encoder.layer[number]
    sizes = model.config
    attention = source.attention
    depth = sizes.hidden_size // sizes.num_attention_heads
    layer = Layer(config.width, config.heads, depth, config.neurons, sizes.layer_norm_eps)

    heads = importance.heads[number].topk(config.heads).indices.sort().values
    rows = (heads[:, None] * depth + torch.arange(depth)).flatten()
    projections = [attention.self.query, attention.self.key, attention.self.value]
    scales = [depth**-0.5, 1.0, 1.0]  # attention's scale lies in the query's weights
    scaled = list(zip(projections, scales, strict=True))
    _set(
        layer.qkv,
        torch.cat([linear.weight[rows] @ basis * scale for linear, scale in scaled]),
        torch.cat([linear.bias[rows] * scale for linear, scale in scaled]),
    )
    merge = attention.output.dense
    _set(layer.attention_out, basis.T @ merge.weight[:, rows], merge.bias @ basis)

    neurons = importance.neurons[number].topk(config.neurons).indices.sort().values
    expand = source.intermediate.dense
    contract = source.output.dense
    _set(layer.ffn_in, expand.weight[neurons] @ basis, expand.bias[neurons])
    _set(layer.ffn_out, basis.T @ contract.weight[:, neurons], contract.bias @ basis)

    if config.width == sizes.hidden_size:
        layer.attention_norm.load_state_dict(attention.output.LayerNorm.state_dict())
        layer.ffn_norm.load_state_dict(source.output.LayerNorm.state_dict())
    return layer


def _set(linear: Any, weight: Tensor, bias: Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
