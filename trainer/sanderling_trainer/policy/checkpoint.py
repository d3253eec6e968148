"""The policy checkpoint: plain files that the trainer writes and `sanderling_quantize` reads.

encoder/             Hugging Face folder of the language model
policy.safetensors   the policy's tensors, and the items' text vectors, residuals, vectors, biases,
                     impressions, and which of them are newcomers
popularity.parquet   how many users liked each item on each day; the next release counts on
vectors.safetensors  the items' vectors, by attribute; absent without any
watermark.parquet    up to which event of each install it has learned, by a hash of the install
config.json          the configuration, kinds of event, release, lineage
items.parquet        id, title, text, record (JSON) in the order of the rows
queries.parquet      histories and what was liked next, for the bundle's gate
metrics.json         how training and evaluation went
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sanderling.bundle.features import CONTEXT, ITEM, FeatureTensors
from sanderling.ranking.features import FeatureMap
from sanderling_quantize.checkpoint import VECTORS, readable
from sanderling_trainer.data.popularity import PopularityHistory
from sanderling_trainer.data.schema import Attribute
from sanderling_trainer.data.tables import Catalog
from sanderling_trainer.event_log.watermark import Watermark
from sanderling_trainer.policy import holdout_queries
from sanderling_trainer.policy.exposure import Exposure
from sanderling_trainer.policy.feature_schema import attribute_table
from sanderling_trainer.policy.model.attribute_table import AttributeTable
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork

WATERMARK = "watermark.parquet"

NAMES = {
    "state.input": "input",
    "state.kind": "kind",
    "output.gain": "gain",
    "output.shift": "shift",
    "output.w1": "w1",
    "output.b1": "b1",
    "output.w2": "w2",
    "output.b2": "b2",
    "context.project": "context_project",
    "item.project": "project",
    "item.residual": "residual",
    "item.own_bias": "bias",
    "item.new_bias": "new_item_bias",
    "item.text": "text",
    "popularity.weights": "popularity_weights",
    "popularity.items": "popularity",
    "popularity.new_item": "new_item_popularity",
}
"""Tensors of the file, and the attributes of the network that they are stored from."""


@dataclass(frozen=True)
class CheckpointMetadata:
    """A checkpoint's lineage and the log it was trained on."""

    app: str

    release: int

    parent: int
    """The release it was trained from, 0 for the first."""

    kinds: list[str]
    """The policy's kinds of event."""

    repeats: bool
    """Whether users come back to items they had."""

    log_from: int
    """Time of the first event, in seconds since 1970 UTC."""

    log_to: int
    """Time up to which the log was used, in seconds since 1970 UTC."""

    data_sha256: str
    """Fingerprint of the log and of what else decided the training."""

    devices_from: int = 0
    """Time of the first event of a device that it learned from, in seconds since 1970 UTC; 0
    before."""

    explorations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How the releases before it explored, by the number of the first that did so: what may be
    believed of their decisions."""

    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The types of the catalog's attributes by name (`Attribute.as_dict`)."""

    context: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The types of the declared features of contexts by name."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained policy with all that a bundle or the next release needs."""

    network: PolicyNetwork
    catalog: Catalog
    config: Config
    metadata: CheckpointMetadata

    popularity: PopularityHistory
    """Of the log up to `metadata.log_to`."""

    exposure: Exposure

    watermark: Watermark = field(default_factory=Watermark)
    """Up to which events of devices it has learned."""

    features: FeatureMap | None = None
    """How typed attributes become features; None for catalogs without attributes."""

    context_features: FeatureMap | None = None
    """How declared features of contexts become numbers; None without any."""

    def explorations(self) -> dict[str, dict[str, Any]]:
        """Return `metadata.explorations` of the next release: with this one, if it differs."""
        known = self.metadata.explorations
        own = self.config.exploration()
        if own in list(known.values())[-1:]:
            return known
        return {**known, str(self.metadata.release): own}


def save(
    folder: Path,
    checkpoint: Checkpoint,
    metrics: dict[str, Any],
    *,
    queries: Sequence[dict[str, Any]] = (),
    encoder: Path | None = None,
) -> None:
    """Write a checkpoint.

    queries: what `holdout_queries.queries_of` returned, for the bundle's gate.
    encoder: the language model's folder, copied unless it is already the checkpoint's own.

    Raises `DivergedError`, and writes nothing, where a parameter is NaN or infinite.
    """
    checkpoint.network.check_finite()
    folder.mkdir(parents=True, exist_ok=True)
    if encoder is not None and encoder.resolve() != (folder / "encoder").resolve():
        shutil.copytree(encoder, folder / "encoder", dirs_exist_ok=True)

    tensors = _tensors(checkpoint.network) | _exposure_tensors(checkpoint.exposure)
    tensors |= _feature_tensors(checkpoint.network, checkpoint.features)
    tensors |= _context_tensors(checkpoint.network, checkpoint.context_features)
    save_file(tensors, folder / "policy.safetensors")
    vectors = {name: torch.from_numpy(found) for name, found in checkpoint.catalog.vectors.items()}
    if vectors:
        save_file(vectors, folder / VECTORS)
    attributes = {name: each.as_dict() for name, each in checkpoint.catalog.attributes.items()}
    checkpoint = replace(checkpoint, metadata=replace(checkpoint.metadata, attributes=attributes))
    settings = {"config": asdict(checkpoint.config), **asdict(checkpoint.metadata)}
    (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
    pq.write_table(_items(checkpoint.catalog), folder / "items.parquet")
    checkpoint.popularity.save(folder / "popularity.parquet")
    checkpoint.watermark.save(folder / WATERMARK)
    holdout_queries.save(folder / holdout_queries.FILE, queries)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint; the network's context table is empty, since each log has its own.

    Raises `FileNotFoundError` where a file is missing, `CheckpointError` where one is damaged.
    """
    try:
        with readable(folder):
            settings = json.loads((folder / "config.json").read_text())
            tensors = load_file(folder / "policy.safetensors")
            table = pq.read_table(folder / "items.parquet").to_pydict()
            config = Config(**settings.pop("config"))
            metadata = CheckpointMetadata(**settings)
            records = [json.loads(record) for record in table["record"]]
    except OSError as error:
        raise FileNotFoundError(f"{folder}: expected a policy checkpoint: {error}") from error

    catalog = Catalog(
        ids=table["id"],
        texts=table["text"],
        records=records,
        attributes={name: Attribute(**each) for name, each in metadata.attributes.items()},
        vectors=_vectors(folder),
    )
    popularity = PopularityHistory.load(folder / "popularity.parquet", len(catalog))
    exposure = _exposure(tensors, len(catalog))
    watermark = Watermark.load(folder / WATERMARK)
    features = _feature_map(tensors, ITEM, config)
    of_context = _feature_map(tensors, CONTEXT, config)
    network = _network(tensors, config, metadata, attribute_table(features, catalog)).eval()
    return Checkpoint(
        network, catalog, config, metadata, popularity, exposure, watermark, features, of_context
    )


def _feature_map(tensors: dict[str, Tensor], of: str, config: Config) -> FeatureMap | None:
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    found = FeatureTensors.of(arrays, of, config.dim)
    return None if found is None else FeatureMap.of(found)


@torch.no_grad()
def _tensors(network: PolicyNetwork) -> dict[str, Tensor]:
    tensors = {
        name: getattr(network, attribute).detach().cpu().contiguous().clone()
        for name, attribute in NAMES.items()
    }
    tensors["state.decay"] = network.decay.cpu().clone()
    tensors["item.vectors"] = network.items().cpu().contiguous()
    tensors["item.biases"] = network.biases().cpu().contiguous()

    # What an item that a device adds between releases starts with.
    new_item = network.new_item_bias + network.new_item_popularity @ network.popularity_weights
    tensors["item.bias"] = new_item.cpu().reshape(1)
    return tensors


@torch.no_grad()
def _feature_tensors(network: PolicyNetwork, features: FeatureMap | None) -> dict[str, Tensor]:
    """Return what a device needs to place a new item by its attributes."""
    if features is None:
        return {}
    project = network.feature_project
    weights = np.zeros((network.project.shape[0], 0), np.float32)
    if project is not None:
        weights = project.detach().cpu().numpy()
    found = FeatureTensors(features.schema, weights, features.mean).tensors(ITEM)
    return {name: torch.from_numpy(tensor.copy()) for name, tensor in found.items()}


@torch.no_grad()
def _context_tensors(network: PolicyNetwork, features: FeatureMap | None) -> dict[str, Tensor]:
    project = network.context_feature_project
    if features is None or project is None:
        return {}
    found = FeatureTensors(features.schema, project.detach().cpu().numpy(), features.mean)
    return {name: torch.from_numpy(part.copy()) for name, part in found.tensors(CONTEXT).items()}


def _vectors(folder: Path) -> dict[str, np.ndarray]:
    path = folder / VECTORS
    if not path.exists():
        return {}
    return {name: vectors.numpy() for name, vectors in load_file(path).items()}


def _exposure_tensors(exposure: Exposure) -> dict[str, Tensor]:
    return {
        "item.came_cold": torch.from_numpy(exposure.came_cold.astype(np.uint8)),
        "item.impressions": torch.from_numpy(exposure.impressions),
        "item.newcomer": torch.from_numpy(exposure.newcomers.astype(np.uint8)),
    }


def _exposure(tensors: dict[str, Tensor], n: int) -> Exposure:
    """Return the items' exposure; older checkpoints have none, and no newcomers."""
    no = torch.zeros(n, dtype=torch.int64)
    return Exposure(
        tensors.get("item.came_cold", no).numpy().astype(np.bool_),
        tensors.get("item.impressions", no).numpy(),
    )


@torch.no_grad()
def _network(
    tensors: dict[str, Tensor],
    config: Config,
    metadata: CheckpointMetadata,
    attributes: AttributeTable | None,
) -> PolicyNetwork:
    of_context = tensors.get("context.feature_project", torch.empty(0, 0))
    no_contexts = torch.empty(0, tensors["item.text"].shape[1] + of_context.shape[1])
    network = PolicyNetwork(
        config, tensors["item.text"], no_contexts, len(metadata.kinds), attributes
    )
    if network.feature_project is not None:
        network.feature_project.copy_(tensors["item.feature_project"])
    if network.context_feature_project is not None:
        network.context_feature_project.copy_(of_context)
    for name, attribute in NAMES.items():
        getattr(network, attribute).copy_(tensors[name])
    network.decay_logit.copy_(torch.logit(tensors["state.decay"]))
    return network


def _items(catalog: Catalog) -> pa.Table:
    return pa.table(
        {
            "id": catalog.ids,
            "title": [str(record.get("title", "")) for record in catalog.records],
            "text": catalog.texts,
            "record": [json.dumps(record, ensure_ascii=False) for record in catalog.records],
        }
    )
