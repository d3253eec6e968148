"""The warm start and the encoding of texts on many machines with Ray (extra `cluster`).

Ray Train starts the processes and joins them (gloo on CPUs, NCCL on GPUs); each of them runs
`warm_start.warm_start`. Ray Data distributes texts over encoders, and a log over readers. Several
machines must share the given folders by a network file system.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from sanderling_trainer.data.shard_writer import ROWS, checked_part, used_columns
from sanderling_trainer.data.shards import Shards
from sanderling_trainer.policy.model.attribute_table import AttributeTable
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.language_model import LanguageModel
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training import distributed
from sanderling_trainer.policy.training import warm_start as local
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.training_state import (
    TrainingCurves,
    copy_parameters,
    load_parameters,
)

AUTO = "auto"
TEXTS = 1024  # in a block

# Files in the folder that the processes share.
START = "start.safetensors"
TRAINED = "trained.safetensors"
CURVES = "curves.json"
UNFINISHED = "unfinished.pt"


def join(address: str = AUTO) -> int:
    """Join a Ray cluster; return how many processes it has room for.

    One process for each GPU, or for each CPU where there is no GPU. "auto" joins the running
    cluster, or starts one on this machine.
    """
    import ray

    if not ray.is_initialized():
        ray.init(address=None if address == AUTO else address, log_to_driver=False)
    resources = ray.cluster_resources()
    return max(1, int(resources.get("GPU", 0) or resources.get("CPU", 1)))


def warm_start(context: TrainingContext, folder: Path, workers: int) -> TrainingCurves:
    """Run the warm start on the workers of a joined cluster; train the context's network in place.

    The context's histories are shards. At most one worker for each shard takes part; they divide
    `config.batch_events` among them. An interrupted run resumes when the same call is repeated.
    """
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    shards = context.histories
    if not isinstance(shards, Shards):
        raise TypeError("ray_cluster.warm_start: expected shards, found histories in memory")

    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = context.network.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / START)

    workers = min(workers, len(shards))
    batch_events = max(1, context.config.batch_events // workers)
    gpus = ray.cluster_resources().get("GPU", 0) > 0
    TorchTrainer(
        _train,
        train_loop_config={
            "folder": str(folder),
            "shards": (str(shards.folder.resolve()), shards.validation_after),
            "config": asdict(replace(context.config, batch_events=batch_events)),
            "repeats": context.repeats,
            "popularity": context.popularity,
        },
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(name="warm-start", storage_path=str(folder)),
    ).fit()

    load_parameters(context.network, load_file(folder / TRAINED))
    context.network.eval()
    return TrainingCurves(**json.loads((folder / CURVES).read_text()))


def _train(settings: dict[str, Any]) -> None:
    """Run in each process of a cluster; the first one writes the result."""
    from ray.train.torch import get_device

    folder = Path(settings["folder"])
    config = Config(**settings["config"])
    tensors = load_file(folder / START)
    network = PolicyNetwork(
        config,
        tensors["text"],
        tensors["contexts"],
        len(tensors["kind"]),
        AttributeTable.of_state(tensors),
    )
    network.load_state_dict(tensors)

    shard_folder, validation_after = settings["shards"]
    context = TrainingContext(
        network.to(get_device()),
        Shards(Path(shard_folder), validation_after),
        config,
        settings["repeats"],
        settings["popularity"],
    )
    curves = local.warm_start(context, resume=folder / UNFINISHED)

    if distributed.rank() == 0:
        parameters = copy_parameters(network)
        save_file({name: value.cpu() for name, value in parameters.items()}, folder / TRAINED)
        (folder / CURVES).write_text(json.dumps(asdict(curves)))
        (folder / UNFINISHED).unlink()


def encode(
    source: str, max_tokens: int, workers: int, texts: Sequence[str], label: str = "encode texts"
) -> NDArray[np.float32]:
    """Return what `LanguageModel(source, max_tokens).encode` returns, float32 [n,
    t], using a cluster.

    A `source` that is a folder must be on every machine.
    """
    import ray

    if not len(texts):
        return LanguageModel(source, max_tokens).encode(texts, label)

    rows = pa.table({"row": np.arange(len(texts)), "text": pa.array(texts, pa.string())})
    blocks = [rows.slice(start, TEXTS) for start in range(0, len(texts), TEXTS)]
    encoded = ray.data.from_arrow(blocks).map_batches(
        _Encoder,
        fn_constructor_args=(source, max_tokens),
        batch_size=TEXTS,
        batch_format="numpy",
        concurrency=min(workers, len(blocks)),
        num_gpus=1 if ray.cluster_resources().get("GPU", 0) else 0,
    )

    # Batches arrive in any order; `row` says where each vector belongs.
    vectors = np.empty((0, 0), np.float32)
    batches = encoded.iter_batches(batch_format="numpy", batch_size=TEXTS)
    for batch in tqdm(batches, label, len(blocks), leave=False):
        if not len(vectors):
            vectors = np.empty((len(texts), batch["vector"].shape[1]), np.float32)
        vectors[batch["row"]] = batch["vector"]
    return vectors


def read(log: Path, ids: pa.Array) -> Iterator[pa.Table]:
    """Yield what `shard_writer.stream` yields, in any order, using a cluster to read
    and check the log.

    For `shard_writer.shard_log`. Rows in a `TableError` count from the beginning of a part.
    """
    import ray

    shared_ids = ray.put(ids)
    columns = used_columns(log)
    parts = ray.data.read_parquet(str(log.resolve()), columns=columns).map_batches(
        lambda table: checked_part(table, Path(f"{log} (a part of it)"), ray.get(shared_ids)),
        batch_format="pyarrow",
        batch_size=ROWS,
    )
    return iter(parts.iter_batches(batch_format="pyarrow", batch_size=ROWS))


class _Encoder:
    def __init__(self, source: str, max_tokens: int) -> None:
        self._model = LanguageModel(source, max_tokens)

    def __call__(self, batch: dict[str, NDArray]) -> dict[str, NDArray]:
        """Encode one batch of texts."""
        return {"row": batch["row"], "vector": self._model.encode(list(batch["text"]))}
