"""What the gate's tests check: a small trained checkpoint, its bundle, and damaged copies of it.

A damaged bundle is sealed again, so that the gate has to find the damage and not the hashes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file
from transformers import AutoModel

from sanderling.bundle import manifest as manifests
from sanderling.bundle.writer import write_items, write_manifest
from sanderling.ranking.column_file import write_columns
from sanderling_quantize.build_bundle import build
from sanderling_quantize.checkpoint import Checkpoint, read
from sanderling_quantize.encoders.build_encoder import Encoding
from sanderling_quantize.gate import Check, TeacherTexts, TextSplit, Thresholds, run_checks
from sanderling_trainer.data.tables import read_catalog, read_interactions
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.train import train
from tests.support.worlds import write_checkerboard, write_language_model

ITEMS = 120
UNSEEN = 40
TIER = Thresholds.of("base")


@dataclass(frozen=True)
class GateCase:
    """A checkpoint, the intact bundle made of it, and the texts that the gate is given."""

    checkpoint: Checkpoint
    bundle: Path

    def run_checks(
        self, bundle: Path, thresholds: Thresholds = TIER, **options: object
    ) -> list[Check]:
        """Run the gate on a bundle against this checkpoint; the last 40 texts count as unseen."""
        all_texts = TeacherTexts(self.checkpoint.texts, self.checkpoint.tensors["item.text"])
        unseen = TeacherTexts(all_texts.texts[-UNSEEN:], all_texts.vectors[-UNSEEN:])
        texts = TextSplit(all_texts.first(ITEMS - UNSEEN), unseen)
        return run_checks(bundle, self.checkpoint, texts, thresholds, **options)


def make(folder: Path) -> None:
    """Train a small checkpoint and build its bundle."""
    checkpoint = make_checkpoint(folder, seed=0)
    build(checkpoint, folder / "bundle", encoding=Encoding("base"))


def load(folder: Path) -> GateCase:
    """Return what `make` has written to a folder."""
    return GateCase(read(folder / "checkpoint"), folder / "bundle")


def make_checkpoint(folder: Path, seed: int) -> Path:
    """Train on a checkerboard of 120 items."""
    folder.mkdir(exist_ok=True)
    items, log = write_checkerboard(folder, users=45, items=ITEMS, seed=seed)
    model = sharpen(write_language_model(folder / "model"))
    config = Config(
        language_model=str(model), dim=16, state=24, hidden=24, epochs=8, policy_epochs=1, pool=20
    )
    catalog = read_catalog(items)
    train(
        catalog,
        read_interactions(log, catalog),
        folder / "checkpoint",
        config,
        app="gate",
        holdout=0.2,
        choose=(),
    )
    return folder / "checkpoint"


def sharpen(folder: Path) -> Path:
    """Enlarge a random language model's weights.

    As they are drawn, all texts have nearly the same vector and no layer matters.
    """
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight *= 10.0
        for name, matrix in model.named_parameters():
            if name.startswith("encoder") and matrix.ndim == 2:
                matrix *= 5.0
    model.save_pretrained(folder)
    return folder


def damaged(intact: GateCase, folder: Path, damage: Callable[[Path, GateCase], None]) -> Path:
    """Copy the intact bundle, damage the copy, and seal it again."""
    shutil.copytree(intact.bundle, folder)
    damage(folder, intact)
    reseal(folder)
    return folder


def reseal(folder: Path) -> None:
    """Make the manifest's hashes and lengths right again."""
    manifest = manifests.read(folder)
    fields = {
        name: getattr(manifest, name)
        for name in manifest.__struct_fields__
        if name not in ("files", "schema")
    }
    write_manifest(folder, **fields)


class FaultyEncoder(torch.nn.Module):
    """The teacher with faults of a careless export; by default without any."""

    def __init__(
        self, folder: Path, cls: bool = False, unit: bool = True, drop: int | None = None
    ) -> None:
        super().__init__()
        self.transformer = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
        self.cls, self.unit = cls, unit
        if drop is not None:
            del self.transformer.encoder.layer[drop]

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.transformer(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = hidden[:, 0] if self.cls else (hidden * weight).sum(1) / weight.sum(1)
        return pooled / pooled.norm(dim=-1, keepdim=True) if self.unit else pooled


def export(encoder: torch.nn.Module, path: Path) -> None:
    """Write an ONNX graph as plainly as torch does it."""
    example = torch.ones(1, 8, dtype=torch.long)
    axes = {name: {1: "tokens"} for name in ("input_ids", "attention_mask")}
    torch.onnx.export(
        encoder,
        (example, example),
        str(path),
        input_names=list(axes),
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )


def exported(**faults: object) -> Callable[[Path, GateCase], None]:
    """Return a damage: the teacher exported with these faults, or with none for the control."""
    return lambda folder, intact: export(
        FaultyEncoder(intact.checkpoint.encoder, **faults), folder / "encoder.onnx"
    )


def coarse(folder: Path, intact: GateCase) -> None:
    """Round every matrix of the encoder to 15 levels with one scale for all of it.

    Int8 per tensor ruins trained encoders; one of 32 dimensions and random weights hardly suffers
    (cosine .9999, 10 nearest .99 of the teacher's, as per channel): here it takes four bits.
    """
    encoder = FaultyEncoder(intact.checkpoint.encoder)
    with torch.no_grad():
        for matrix in encoder.parameters():
            if matrix.ndim == 2:
                step = matrix.abs().max() / 7
                matrix.copy_(torch.round(matrix / step) * step)
    export(encoder, folder / "encoder.onnx")


def shuffled_vocabulary(folder: Path, _: GateCase) -> None:
    """Permute the ids of the tokenizer's words."""
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    words = [word for word in vocabulary if not word.startswith("[")]
    ids = np.random.default_rng(0).permutation([vocabulary[word] for word in words]).tolist()
    vocabulary.update(zip(words, ids, strict=True))
    (folder / "tokenizer.json").write_text(json.dumps(content))


def swapped_rows(folder: Path, _: GateCase) -> None:
    """Swap vector, scale and bias of the first two items."""
    tensors = load_file(folder / "items.safetensors")
    for name in ("rows", "scale", "bias"):
        tensors[name][[0, 1]] = tensors[name][[1, 0]]
    save_file(tensors, folder / "items.safetensors")


def swapped_records(folder: Path, intact: GateCase) -> None:
    """Swap id and record of the first two items; the bundle stays consistent in itself."""
    tensors, records = load_file(folder / "items.safetensors"), list(intact.checkpoint.records)
    records[:2] = records[1::-1]
    write_items(folder, tensors["rows"], tensors["scale"], tensors["bias"], records)


def another_catalog(folder: Path, intact: GateCase) -> None:
    """Replace the items by as many others."""
    tensors = load_file(folder / "items.safetensors")
    records = [
        {**record, "id": f"other {row}"} for row, record in enumerate(intact.checkpoint.records)
    ]
    write_items(
        folder, tensors["rows"][::-1], tensors["scale"][::-1], tensors["bias"][::-1], records
    )


def fewer_items(folder: Path, intact: GateCase) -> None:
    """Leave out the second half of the items."""
    tensors = load_file(folder / "items.safetensors")
    manifest = manifests.read(folder)
    half = ITEMS // 2
    halves = [tensors[name][:half] for name in ("rows", "scale", "bias")]
    write_items(folder, *halves, intact.checkpoint.records[:half])
    write_columns(folder, intact.checkpoint.records[:half])
    manifest = msgspec.structs.replace(
        manifest, sizes=msgspec.structs.replace(manifest.sizes, items=half)
    )
    (folder / manifests.MANIFEST).write_bytes(manifests.dump(manifest))


def nan_in_policy(folder: Path, _: GateCase) -> None:
    """Put one NaN among the policy's weights."""
    tensors = load_file(folder / "policy.safetensors")
    tensors["output.w2"][0, 0] = np.nan
    save_file(tensors, folder / "policy.safetensors")


def nan_in_encoder(folder: Path, intact: GateCase) -> None:
    """Put one NaN into a weight of the encoder's last layer, which every text passes."""
    encoder = FaultyEncoder(intact.checkpoint.encoder)
    with torch.no_grad():
        encoder.transformer.encoder.layer[-1].output.LayerNorm.weight[0] = torch.nan
    export(encoder, folder / "encoder.onnx")


def truncated(folder: Path, _: GateCase) -> None:
    """Cut the encoder's file in half."""
    data = (folder / "encoder.onnx").read_bytes()
    (folder / "encoder.onnx").write_bytes(data[: len(data) // 2])


def endless(folder: Path, _: GateCase) -> None:
    """Replace the encoder by a graph whose loop counts to 2^60 before it answers."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["continue"], ["still"]),
            helper.make_node("Sin", ["x"], ["y"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("continue", TensorProto.BOOL, []),
            value("x", TensorProto.FLOAT, [1, 32]),
        ],
        [value("still", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, [1, 32])],
    )
    constants = {
        "count": np.array(2**60),
        "on": np.array(True),
        "start": np.ones((1, 32), np.float32),
    }
    graph = helper.make_graph(
        [helper.make_node("Loop", ["count", "on", "start"], ["vector"], body=body)],
        "endless",
        [value(name, TensorProto.INT64, [1, "tokens"]) for name in ("input_ids", "attention_mask")],
        [value("vector", TensorProto.FLOAT, [1, 32])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "encoder.onnx")
