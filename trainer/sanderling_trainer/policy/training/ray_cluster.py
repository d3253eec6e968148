"""The same learning and the same encoding on many machines, by Ray (extra `cluster`).

Ray Train starts the processes and joins them (gloo on CPUs, NCCL on GPUs); what each of them runs is `fit.warm_start`.
Ray Data spreads texts over encoders, and a log over readers. Machines share `folder`, a network file system where there
are several. Refuses to know losses, and to schedule.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from sanderling_trainer.data.popularity import Trends
from sanderling_trainer.data.shard_writer import ROWS, checked, used
from sanderling_trainer.data.shards import Shards
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.language_model import LanguageModel
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training import distributed, training_state
from sanderling_trainer.policy.training import warm_start as fit
from sanderling_trainer.policy.training.training_state import Trace

AUTO = "auto"
TEXTS = 1024
START, LEARNED, TRACE, UNFINISHED = (
    "start.safetensors",
    "learned.safetensors",
    "trace.json",
    "unfinished.pt",
)


def join(address: str = AUTO) -> int:
    """Join a cluster, and return how many processes it has room for: one a GPU where there are any, else one a CPU.

    "auto" takes the running cluster, or starts one on this machine.
    """
    import ray

    if not ray.is_initialized():
        ray.init(address=None if address == AUTO else address, log_to_driver=False)
    found = ray.cluster_resources()
    return max(1, int(found.get("GPU", 0) or found.get("CPU", 1)))


def warm_start(
    network: PolicyNetwork,
    shards: Shards,
    config: Config,
    repeats: bool,
    trends: Trends | None,
    folder: Path,
    workers: int,
) -> Trace:
    """Run `fit.warm_start` on a joined cluster's workers, no more than there are shards; the network takes the result.

    A step's `config.batch_events` are shared out among them. An interrupted run goes on when the same call is made
    again.
    """
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / START
    )
    workers = min(workers, len(shards))
    config = replace(config, batch_events=max(1, config.batch_events // workers))
    gpus = ray.cluster_resources().get("GPU", 0) > 0
    TorchTrainer(
        _learn,
        train_loop_config={
            "folder": str(folder),
            "shards": (str(shards.folder.resolve()), shards.fresh_after),
            "config": asdict(config),
            "repeats": repeats,
            "trends": trends,
        },
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(name="warm-start", storage_path=str(folder)),
    ).fit()
    training_state.give(network, load_file(folder / LEARNED))
    network.eval()
    return Trace(**json.loads((folder / TRACE).read_text()))


def _learn(settings: dict[str, Any]) -> None:
    """What each process runs; the first one writes down what came of it."""
    from ray.train.torch import get_device

    folder, config = Path(settings["folder"]), Config(**settings["config"])
    tensors = load_file(folder / START)
    network = PolicyNetwork(config, tensors["text"], tensors["contexts"], len(tensors["kind"]))
    network.load_state_dict(tensors)
    where, fresh_after = settings["shards"]
    trace = fit.warm_start(
        network.to(get_device()),
        Shards(Path(where), fresh_after),
        config,
        settings["repeats"],
        settings["trends"],
        resume=folder / UNFINISHED,
    )
    if distributed.rank() == 0:
        save_file(
            {name: tensor.cpu() for name, tensor in training_state.learned(network).items()},
            folder / LEARNED,
        )
        (folder / TRACE).write_text(json.dumps(asdict(trace)))
        (folder / UNFINISHED).unlink()


def encode(
    source: str, max_tokens: int, workers: int, texts: Sequence[str], label: str = "encode texts"
) -> NDArray[np.float32]:
    """Return what `LanguageModel(source, max_tokens).encode` returns, float32 [n, t], from a joined cluster's workers.

    A `source` that is a folder must be there on every machine.
    """
    import ray

    rows = pa.table({"row": np.arange(len(texts)), "text": pa.array(texts, pa.string())})
    blocks = [rows.slice(start, TEXTS) for start in range(0, len(texts), TEXTS)]
    encoded = ray.data.from_arrow(blocks or rows).map_batches(
        _Encoder,
        fn_constructor_args=(source, max_tokens),
        batch_size=TEXTS,
        batch_format="numpy",
        concurrency=min(workers, max(1, len(blocks))),
        num_gpus=1 if ray.cluster_resources().get("GPU", 0) else 0,
    )
    vectors = None
    for batch in tqdm(
        encoded.iter_batches(batch_format="numpy", batch_size=TEXTS),
        label,
        len(blocks),
        leave=False,
    ):
        if vectors is None:
            vectors = np.empty((len(texts), batch["vector"].shape[1]), np.float32)
        vectors[batch["row"]] = batch["vector"]
    return (
        vectors if vectors is not None else LanguageModel(source, max_tokens).encode(texts, label)
    )


def read(log: Path, ids: pa.Array) -> Iterator[pa.Table]:
    """Yield what `sharding.stream` yields, in any order: many read and check the log, for `sharding.shard`.

    Rows in a `TableError` count from the beginning of a part.
    """
    import ray

    wide = ray.put(ids)
    parts = ray.data.read_parquet(str(log.resolve()), columns=used(log)).map_batches(
        lambda table: checked(table, Path(f"{log} (a part of it)"), ray.get(wide)),
        batch_format="pyarrow",
        batch_size=ROWS,
    )
    return iter(parts.iter_batches(batch_format="pyarrow", batch_size=ROWS))


class _Encoder:
    def __init__(self, source: str, max_tokens: int) -> None:
        self._model = LanguageModel(source, max_tokens)
        self._model.model.to("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, batch: dict[str, NDArray]) -> dict[str, NDArray]:
        """Encode one batch of texts."""
        return {"row": batch["row"], "vector": self._model.encode(list(batch["text"]))}
