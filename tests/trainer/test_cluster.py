"""Several processes train one network: joined by torch alone, and by Ray where it is installed."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import distributed

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.data.shard_writer import shard_histories, shard_log
from sanderling_trainer.data.shards import Shards
from sanderling_trainer.data.tables import Catalog
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training import distributed as training_processes
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.training_state import copy_parameters
from sanderling_trainer.policy.training.warm_start import warm_start
from tests.support.worlds import write_checkerboard, write_language_model

pytestmark = pytest.mark.lab

ITEMS, SPLIT = 40, 16 * DAY
BASE = Config(
    dim=8, state=12, hidden=10, epochs=4, batch_events=48, learning_rate=1e-2, negatives=20
)
CONFIGS = {
    "full": BASE,
    "sampled": replace(BASE, full_softmax=ITEMS - 1),
    "added": replace(BASE, accumulate=2),
}


def network(config: Config) -> PolicyNetwork:
    torch.manual_seed(0)
    return PolicyNetwork(config, torch.randn(ITEMS, 6), torch.randn(2, 6), 3)


def histories(users: int = 40) -> list[History]:
    rng = np.random.default_rng(0)
    made = []
    for user in range(users):
        length = int(rng.integers(4, 14))
        times = np.sort(rng.integers(0, 20 * DAY, length))
        items = 2 * rng.integers(0, ITEMS // 2, length) + user % 2
        columns = (
            rng.integers(0, 3, length),
            np.ones(length, np.bool_),
            np.full(length, -1, np.int64),
        )
        made.append(History(items, *columns, times > SPLIT, times))
    return made


def run(
    found: list[History] | Shards, config: Config
) -> tuple[dict[str, torch.Tensor], list[float], list[float]]:
    made = network(config)
    popularity = PopularityHistory.of(np.arange(9), np.arange(9), np.arange(9) * DAY, ITEMS)
    curves = warm_start(TrainingContext(made, found, config, False, popularity))
    return copy_parameters(made), curves.loss, curves.validation


def process(rank: int, size: int, folder: Path) -> None:
    """Train as one of several processes: every config from memory and from shards."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size
    )
    sources = {"memory": histories(), "shards": Shards(folder / "shards", SPLIT)}
    done = {
        f"{name} {source}": run(found, config)
        for name, config in CONFIGS.items()
        for source, found in sources.items()
    }
    steps = list(
        training_processes.in_step(
            iter(range(3 if rank else 5)), lambda: iter(range(10, 19)), torch.device("cpu")
        )
    )
    torch.save((done, steps, averaged(rank)), folder / f"done-{rank}.pt")
    distributed.destroy_process_group()


def averaged(rank: int) -> dict[str, list]:
    """Average a dense gradient, a sparse one, and one that only the first process has."""
    dense, sparse, none = (torch.nn.Parameter(torch.zeros(size)) for size in ((2,), (3, 1), (1,)))
    dense.grad = torch.tensor([float(rank), 1.0])
    rows = torch.tensor([[1, 0], [1, 1]][rank][: 2 - rank])[None]
    sparse.grad = torch.sparse_coo_tensor(
        rows, torch.ones(2 - rank, 1), (3, 1), check_invariants=True
    )
    if rank == 0:
        none.grad = torch.tensor([2.0])
    training_processes.average_gradients([dense, sparse, none])
    found = {
        "dense": dense.grad.tolist(),
        "sparse": sparse.grad.to_dense().tolist(),
        "none": none.grad.tolist(),
    }
    return found | {
        "total": training_processes.total([1.0 + rank, float(rank)], torch.device("cpu"))
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return the results of two processes that train together."""
    folder = tmp_path_factory.mktemp("ranks")
    shard_histories(histories(), folder / "shards", ITEMS, ["view", "buy", "click"], shards=5)
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=process, args=(rank, 2, folder)) for rank in range(2)]
    for one in started:
        one.start()
    for one in started:
        one.join(120)
    assert [one.exitcode for one in started] == [0, 0]
    return [torch.load(folder / f"done-{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("source", ["memory", "shards"])
@pytest.mark.parametrize("name", CONFIGS)
def test_two_processes_end_with_the_same_network(both, name, source):
    """Parameters are bit for bit equal on both, dense and sparse gradients alike, and so are
    loss and validation.
    """
    (one, *curves), (other, *theirs) = (done[f"{name} {source}"] for done, *_ in both)
    assert curves == theirs
    for parameter in one:
        assert torch.equal(one[parameter], other[parameter]), parameter
    start = copy_parameters(network(CONFIGS[name]))
    assert not torch.equal(one["residual"], start["residual"])


@pytest.mark.parametrize("name", ["full", "sampled"])
def test_two_processes_learn_as_one_with_batches_twice_as_large(both, name):
    """With the same total batch the loss falls as far, up to the effect of the batches' order."""
    _, loss, validation = both[0][0][f"{name} memory"]
    config = replace(CONFIGS[name], batch_events=2 * BASE.batch_events)
    _, alone, expected = run(histories(), config)
    fallen = alone[0] - alone[-1]
    assert fallen > 0.1
    assert loss[0] - loss[-1] > 0.1
    assert abs(loss[-1] - alone[-1]) < 0.15
    assert abs(validation[-1] - expected[-1]) < 0.15


def test_one_gradient_is_the_mean_of_two(both):
    """Dense, sparse and one-sided gradients are averaged over the processes, totals are summed."""
    expected = {
        "dense": [0.5, 1.0],
        "sparse": [[0.5], [1.0], [0.0]],
        "none": [1.0],
        "total": [3.0, 1.0],
    }
    assert [mean for _, _, mean in both] == [expected] * 2


def test_a_process_that_finishes_early_continues_until_all_have_finished(both):
    """The longer epoch decides how many steps both take; the other process restarts its own."""
    assert [steps for _, steps, _ in both] == [[0, 1, 2, 3, 4], [0, 1, 2, 10, 11]]


def test_a_single_process_averages_and_repeats_nothing():
    """Outside of a group there is one process, and an epoch has its own batches alone."""
    assert (training_processes.size(), training_processes.rank()) == (1, 0)
    assert list(
        training_processes.in_step(iter([1, 2]), lambda: iter([3]), torch.device("cpu"))
    ) == [1, 2]


@pytest.fixture(scope="module")
def cluster():
    """Return how many processes a small Ray cluster on this machine has room for."""
    ray = pytest.importorskip("ray")
    from sanderling_trainer.policy.training import ray_cluster as cluster

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield cluster.join()
    ray.shutdown()


@pytest.mark.soak
def test_ray_train_runs_the_same_fit(cluster, both, tmp_path):
    """Two workers of Ray Train end, bit for bit, like two processes joined by torch alone."""
    from sanderling_trainer.policy.training.ray_cluster import warm_start as on_cluster

    made = network(BASE)
    shards = shard_histories(
        histories(), tmp_path / "shards", ITEMS, ["view", "buy", "click"], shards=5
    )
    popularity = PopularityHistory.of(np.arange(9), np.arange(9), np.arange(9) * DAY, ITEMS)
    config = replace(BASE, batch_events=2 * BASE.batch_events)
    shards = replace(shards, validation_after=SPLIT)
    context = TrainingContext(made, shards, config, False, popularity)
    curves = on_cluster(context, tmp_path / "run", cluster)
    expected, loss, validation = both[0][0]["full shards"]
    assert (curves.loss, curves.validation) == (loss, validation)
    for name, parameter in copy_parameters(made).items():
        assert torch.equal(parameter, expected[name]), name


@pytest.mark.soak
def test_ray_data_encodes_a_catalog_as_one_process_does(cluster, tmp_path):
    """The vectors of a thousand and some texts, in their order, equal the single
    process's within 1e-5.
    """
    from sanderling_trainer.policy.model.language_model import LanguageModel
    from sanderling_trainer.policy.training.ray_cluster import encode

    folder = write_language_model(tmp_path / "model")
    texts = [f"red shoe number {at} {'colour blue ' * (at % 5)}" for at in range(1500)]
    found = encode(str(folder), 16, cluster, texts)
    np.testing.assert_allclose(found, LanguageModel(str(folder), 16).encode(texts), atol=1e-5)


@pytest.mark.soak
def test_ray_data_reads_a_log_as_one_process_does(cluster, tmp_path):
    """The shards of a log that Ray Data read hold the rows of those that one process made."""
    from sanderling_trainer.policy.training.ray_cluster import read

    rng = np.random.default_rng(0)
    ids = [f"item {at}" for at in range(ITEMS)]
    columns = {"user_id": rng.integers(0, 50, 3000), "timestamp": rng.permutation(3000)}
    columns["item_id"] = [ids[at] for at in rng.integers(0, ITEMS, 3000)]
    columns["context"] = [["", "rain", "sun"][at] for at in rng.integers(0, 3, 3000)]
    pq.write_table(pa.table(columns), tmp_path / "log.parquet", row_group_size=500)
    catalog = Catalog(ids, ids, [{"id": one} for one in ids])
    made = [
        shard_log(tmp_path / "log.parquet", catalog, tmp_path / str(reader), 1000, reader)
        for reader in (None, read)
    ]
    for at in range(3):
        one, other = (
            pq.read_table(found.folder / f"{at:05d}.parquet").to_pydict() for found in made
        )
        words = [
            [found.contexts[code] if code >= 0 else "" for code in table.pop("context")]
            for found, table in zip(made, (one, other), strict=True)
        ]
        assert one == other
        assert words[0] == words[1]


@pytest.mark.soak
def test_the_whole_command_runs_on_a_cluster_and_fine_tunes_its_language_model(cluster, tmp_path):
    """`train --cluster auto --lora` leaves an ordinary checkpoint, with the curves of
    learning, and no shards.
    """
    pytest.importorskip("peft")
    from sanderling_trainer.data.tables import read_catalog, read_interactions
    from sanderling_trainer.policy.train import train

    items, log = write_checkerboard(tmp_path, users=30, items=20, steps=10)
    catalog = read_catalog(items)
    config = replace(
        BASE, language_model=str(write_language_model(tmp_path / "model")), policy_epochs=1, pool=10
    )
    done = train(
        catalog,
        read_interactions(log, catalog),
        tmp_path / "out",
        config,
        app="t",
        choose=(),
        lora=True,
        cluster="auto",
    )
    assert len(done.metrics["warm_start"]["loss"]) == 4
    assert {"encode", "fit for the report", "fit"} <= done.seconds.keys()
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "encoder",
        "policy.safetensors",
        "items.parquet",
    }
    assert not list((tmp_path / "out").glob("unfinished*"))
