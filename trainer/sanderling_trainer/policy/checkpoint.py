"""The policy checkpoint: plain files between trainer and quantize.

    encoder/             Hugging Face folder of the language model
    policy.safetensors   the tensors of the bundle's policy, and the items' text vectors, residuals, vectors and biases
    trends.parquet       how many users liked each item on each day: the next release's trends go on from here
    config.json          the configuration, kinds of event, release, lineage
    items.parquet        id, title, text, record (JSON) in the order of the rows
    queries.parquet      histories and what was liked next, for the bundle's gate
    metrics.json         what judge saw

Refuses to learn or to judge.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from sanderling_quantize.checkpoint import readable
from sanderling_trainer.data.popularity import Trends
from sanderling_trainer.data.tables import Catalogue
from sanderling_trainer.policy import holdout_queries as held_out
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork

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
    "item.text": "text",
    "trend.weights": "trend_weights",
    "trend.items": "trend",
    "trend.new_item": "new_item",
}


@dataclass(frozen=True)
class CheckpointMetadata:
    """What a checkpoint says of itself: its release and parent, the kinds of event, and the log it learned from."""

    app: str
    release: int
    parent: int
    kinds: list[str]
    repeats: bool
    log_from: int
    log_to: int
    data_sha256: str


def save(
    folder: Path,
    network: PolicyNetwork,
    catalogue: Catalogue,
    config: Config,
    facts: CheckpointMetadata,
    metrics: dict[str, Any],
    trends: Trends,
    encoder: Path | None = None,
    queries: Sequence[dict[str, Any]] = (),
) -> None:
    """Write a checkpoint; `encoder` is copied unless the folder has one already, `queries` are those of the gate.

    Raises `DivergedError`, and writes nothing, where a parameter is not finite.
    """
    network.check_finite()
    folder.mkdir(parents=True, exist_ok=True)
    if encoder is not None and encoder.resolve() != (folder / "encoder").resolve():
        shutil.copytree(encoder, folder / "encoder", dirs_exist_ok=True)
    with torch.no_grad():
        tensors = {
            name: getattr(network, field).detach().cpu().contiguous().clone()
            for name, field in NAMES.items()
        }
        tensors["state.decay"] = network.decay.cpu().clone()
        tensors["item.vectors"] = network.items().cpu().contiguous()
        tensors["item.biases"] = network.biases().cpu().contiguous()
        tensors["item.bias"] = (
            (network.bias.median() + network.new_item @ network.trend_weights).cpu().reshape(1)
        )
    save_file(tensors, folder / "policy.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"config": asdict(config), **asdict(facts)}, indent=1) + "\n"
    )
    records = [json.dumps(record, ensure_ascii=False) for record in catalogue.records]
    titles = [str(record.get("title", "")) for record in catalogue.records]
    table = pa.table(
        {"id": catalogue.ids, "title": titles, "text": catalogue.texts, "record": records}
    )
    pq.write_table(table, folder / "items.parquet")
    trends.save(folder / "trends.parquet")
    held_out.save(folder / held_out.FILE, queries)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")


def load(folder: Path) -> tuple[PolicyNetwork, Catalogue, Config, CheckpointMetadata, Trends]:
    """Read a checkpoint; the network's context table is empty."""
    try:
        with readable(folder):
            settings = json.loads((folder / "config.json").read_text())
            tensors = load_file(folder / "policy.safetensors")
            table = pq.read_table(folder / "items.parquet").to_pydict()
            config = Config(**settings.pop("config"))
            facts = CheckpointMetadata(**settings)
            records = [json.loads(record) for record in table["record"]]
    except OSError as error:
        raise FileNotFoundError(f"{folder}: expected a policy checkpoint: {error}") from error
    catalogue = Catalogue(ids=table["id"], texts=table["text"], records=records)
    empty = torch.empty(0, tensors["item.text"].shape[1])
    network = PolicyNetwork(config, tensors["item.text"], empty, len(facts.kinds))
    with torch.no_grad():
        for name, field in NAMES.items():
            getattr(network, field).copy_(tensors[name])
        network.decay_logit.copy_(torch.logit(tensors["state.decay"]))
    return (
        network.eval(),
        catalogue,
        config,
        facts,
        Trends.load(folder / "trends.parquet", len(catalogue)),
    )
