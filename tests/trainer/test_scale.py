"""Beyond one screen of items and one memory of events: the sampled softmax, rows of a table, shards on disk."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sanderling.errors import TableError
from sanderling_trainer.data import shard_writer
from sanderling_trainer.data.histories import History, histories_of, kinds_of
from sanderling_trainer.data.popularity import DAY, Trends
from sanderling_trainer.data.shard_writer import shard
from sanderling_trainer.data.shards import Shards, Writer
from sanderling_trainer.data.tables import Catalogue, read_interactions
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.batch_source import InMemory, OutOfCore
from sanderling_trainer.policy.training.batches import (
    TrendTable,
    earlier,
    first_seen,
    lessons,
    seen_at,
)
from sanderling_trainer.policy.training.objectives import CrossEntropy
from sanderling_trainer.policy.training.optimizer import RowAdamW
from sanderling_trainer.policy.training.sampled_softmax import Proposal
from sanderling_trainer.policy.training.warm_start import warm_start

pytestmark = pytest.mark.lab

ITEMS = 60
CPU = torch.device("cpu")
SMALL = Config(
    dim=8, state=12, hidden=10, epochs=4, batch_events=64, learning_rate=1e-2, negatives=30
)


class Everything(Proposal):
    """Draws every item once."""

    def draw(self, size: int) -> torch.Tensor:
        assert size == len(self.log_q)
        return torch.arange(size)


def network(config: Config = SMALL, items: int = ITEMS) -> PolicyNetwork:
    torch.manual_seed(3)
    made = PolicyNetwork(config, torch.randn(items, 6), torch.randn(2, 6), 3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def histories(users: int = 24, length: int = 12, fresh_from: int = 10**9) -> list[History]:
    """Users who keep to every other item."""
    rng = np.random.default_rng(0)
    return [
        History(
            items=2 * rng.integers(0, ITEMS // 2, length) + user % 2,
            kinds=rng.integers(0, 3, length),
            liked=rng.random(length) < 0.8,
            contexts=rng.integers(-1, 2, length),
            fresh=np.arange(length) >= fresh_from,
            times=np.sort(rng.integers(0, 20 * DAY, length)),
        )
        for user in range(users)
    ]


def gradient(made: PolicyNetwork, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    made.zero_grad()
    loss.backward()
    return {
        name: (value.grad.to_dense() if value.grad.is_sparse else value.grad).clone()
        for name, value in made.named_parameters()
        if value.grad is not None
    }


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("trended", [True, False])
def test_with_every_item_drawn_once_the_sampled_softmax_is_the_full_one(repeats, trended):
    """With q uniform and all items as candidates loss and gradients equal those of the full softmax."""
    made, config = network().eval(), replace(SMALL, negatives=ITEMS)
    trends = Trends.of(np.arange(30), np.arange(30) % 7, np.arange(30) * DAY // 2, ITEMS)
    table = TrendTable(trends, CPU) if trended else None
    for batch, asked in lessons(histories(), config, repeats, CPU, None):
        uniform = Proposal.of(np.zeros(ITEMS, np.int64), CPU, uniform=1.0)
        everything = Everything(uniform.log_q, uniform.cumulative)
        whole = CrossEntropy(made, config, repeats, table)(batch, asked)
        sampled = CrossEntropy(made, config, repeats, table, everything)(batch, asked)
        torch.testing.assert_close(sampled, whole, rtol=1e-5, atol=1e-5)
        expected, found = gradient(made, whole), gradient(made, sampled)
        assert expected.keys() == found.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_the_corrected_sample_estimates_the_partition_function_without_bias():
    """The mean over draws of Σ exp(s + correction) is Σ exp(s) over all items, whatever is certain and however q is."""
    torch.manual_seed(0)
    scores, counts = torch.randn(ITEMS), np.arange(ITEMS) ** 2
    proposal = Proposal.of(counts, CPU, uniform=0.2).fixed(1)
    certain = torch.tensor([59, 3, 3, -1, 17])
    values = []
    for _ in range(4000):
        rows, correction = proposal.candidates(certain, 16)
        assert (rows.diff() > 0).all()
        values.append((scores[rows] + correction).exp().sum().item())
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values) - scores.exp().sum().item()) < 4 * error
    assert error < 0.02 * scores.exp().sum().item()


def test_draws_follow_the_proposal():
    """Frequencies of a million draws are within five standard errors of q; half of it is uniform."""
    counts = np.array([0, 10, 30, 0, 60])
    proposal = Proposal.of(counts, CPU).fixed()
    q = 0.1 + 0.5 * counts / 100
    np.testing.assert_allclose(proposal.log_q.exp(), q, rtol=1e-6)
    found = np.bincount(proposal.draw(10**6), minlength=5) / 10**6
    assert (np.abs(found - q) < 5 * np.sqrt(q / 10**6)).all()


def test_the_gradient_approaches_the_full_one_as_the_sample_grows():
    """The distance of the mean gradient from the full softmax's falls with S, to a twentieth of its length."""
    made = network(items=2000).eval()
    ((batch, asked),) = lessons(histories(4, 6), SMALL, False, CPU, None)
    whole = gradient(made, CrossEntropy(made, SMALL, False)(batch, asked))
    distances = []
    for negatives in (8, 128, 8192):
        config, proposal = (
            replace(SMALL, negatives=negatives),
            Proposal.of(np.ones(2000), CPU).fixed(),
        )
        found = [
            gradient(made, CrossEntropy(made, config, False, proposal=proposal)(batch, asked))
            for _ in range(20)
        ]
        mean = {name: torch.stack([one[name] for one in found]).mean(0) for name in whole}
        distances.append(
            sum((mean[name] - whole[name]).pow(2).sum() for name in whole).sqrt().item()
        )
    length = sum(value.pow(2).sum() for value in whole.values()).sqrt().item()
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < length / 20


def test_earlier_items_are_those_that_were_seen():
    """The pairs of points and items seen before equal the whole table of `seen_at`."""
    for batch, asked in lessons(histories(), SMALL, True, CPU, None):
        expected = seen_at(first_seen(batch, ITEMS), asked.place, asked.at)
        found = torch.zeros_like(expected)
        found[earlier(batch.items, asked.place, asked.at)] = True
        assert torch.equal(found, expected)


def test_a_step_on_rows_is_the_step_on_the_whole_table():
    """RowAdamW equals AdamW where a gradient touches every row, and leaves rows alone that it does not touch."""
    torch.manual_seed(0)
    start = torch.randn(6, 3)
    rows, whole = (torch.nn.Parameter(start.clone()) for _ in range(2))
    steps = [RowAdamW([rows], 0.1, 0.5), torch.optim.AdamW([whole], 0.1, weight_decay=0.5)]
    for _ in range(3):
        wanted = torch.randn(6, 3)
        whole.grad, rows.grad = wanted.clone(), wanted.to_sparse(1)
        for step in steps:
            step.step()
    torch.testing.assert_close(rows, whole)
    before = rows.detach().clone()
    rows.grad = torch.sparse_coo_tensor(
        torch.tensor([[2, 2]]), torch.ones(2, 3), (6, 3), check_invariants=True
    )
    steps[0].step()
    assert (rows != before).any(1).tolist() == [False, False, True, False, False, False]


def test_a_large_catalogue_is_learned_by_rows_and_resumes_bit_for_bit(tmp_path):
    """Above `full_softmax` the residual's gradient is sparse, the fresh events are predicted better, and a resumed run
    equals one in one go."""
    config = replace(SMALL, full_softmax=ITEMS - 1, epochs=6)
    straight, broken = network(config), network(config)
    whole = warm_start(straight, histories(fresh_from=10), config, repeats=True)
    assert whole.validation[-1] < whole.validation[0] - 0.02
    journal = _StopAfter(2)
    with pytest.raises(KeyboardInterrupt):
        warm_start(
            broken,
            histories(fresh_from=10),
            config,
            True,
            journal=journal,
            resume=tmp_path / "run.pt",
        )
    resumed = warm_start(
        network(config), histories(fresh_from=10), config, True, resume=tmp_path / "run.pt"
    )
    assert resumed == whole
    ((batch, asked),) = lessons(histories(2, 3), config, True, CPU, None)
    few = replace(config, negatives=4)
    proposal = Proposal.of(np.ones(ITEMS), CPU)
    straight.zero_grad()
    CrossEntropy(straight, few, True, proposal=proposal)(batch, asked).backward()
    assert straight.residual.grad.is_sparse
    assert straight.residual.grad.coalesce().indices().shape[1] <= 6 + 4


class _StopAfter:
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def add(self, stage, epoch, values):
        if epoch == self.epochs:
            raise KeyboardInterrupt


def write_log(folder, events=500, users=37, seed=0, **changes):
    rng = np.random.default_rng(seed)
    columns = {
        "user_id": [f"user {at}" for at in rng.integers(0, users, events)],
        "item_id": [f"item {at}" for at in rng.integers(0, ITEMS, events)],
        "timestamp": rng.integers(0, 30 * DAY, events),
        "reward": rng.choice([-1.0, 0.0, 1.0], events),
        "kind": rng.choice(["view", "buy"], events),
        "context": [None if at == 2 else ["rain", "sun"][at] for at in rng.integers(0, 3, events)],
    }
    columns |= changes
    pq.write_table(
        pa.table({name: value for name, value in columns.items() if value is not None}),
        folder / "log.parquet",
    )
    ids = [f"item {at}" for at in range(ITEMS)]
    return folder / "log.parquet", Catalogue(ids, ids, [{"id": one} for one in ids])


def told(history: History, contexts) -> tuple:
    """Return what a history says, in an order that does not hang on ties of time."""
    words = [contexts[at] if at >= 0 else "" for at in history.contexts]
    rows = zip(
        history.times,
        history.items,
        history.kinds,
        history.liked,
        words,
        history.fresh,
        strict=True,
    )
    return tuple(
        sorted(
            (int(t), int(i), int(k), bool(like), word, bool(f)) for t, i, k, like, word, f in rows
        )
    )


@pytest.mark.parametrize(
    "changes", [{}, {"kind": None}, {"context": None}, {"reward": None, "kind": None}]
)
def test_shards_hold_what_the_log_in_memory_holds(tmp_path, monkeypatch, changes):
    """Histories, kinds, contexts, counts, trends and lengths equal those of the log read whole, in small parts."""
    monkeypatch.setattr(shard_writer, "ROWS", 64)
    log, catalogue = write_log(tmp_path, **changes)
    found = replace(shard(log, catalogue, tmp_path / "shards", events=100), fresh_after=20 * DAY)
    whole = read_interactions(log, catalogue)
    assert len(found) == 5
    assert (found.events, found.kinds) == (len(whole), kinds_of(whole))
    histories = [history for at in range(len(found)) for history in found.read(at)]
    contexts = found.contexts
    expected = histories_of(whole, kinds_of(whole), 20 * DAY)
    assert sorted(told(one, contexts) for one in histories) == sorted(
        told(one, whole.contexts) for one in expected
    )
    assert all((np.diff(one.times) >= 0).all() for one in histories)
    assert [len(one) for one in found.read(2)] == found.lengths(2).tolist()
    np.testing.assert_array_equal(found.counts(), np.bincount(whole.item, minlength=ITEMS))
    known = (whole.reward > 0) & (whole.time <= 20 * DAY)
    trends, wanted = (
        found.trends(),
        Trends.of(whole.user[known], whole.item[known], whole.time[known], ITEMS),
    )
    for name in ("day", "row", "users"):
        np.testing.assert_array_equal(getattr(trends, name), getattr(wanted, name))
    before = found.moment(0.5)
    assert (before + 1) % DAY == 0
    assert (whole.time <= before - DAY).mean() < 0.5 <= (whole.time <= before).mean()
    assert not list((tmp_path / "shards").glob("tmp*"))


def test_a_user_lives_in_one_shard(tmp_path):
    """No user's hash is in two shards, and there are as many users as in the log."""
    log, catalogue = write_log(tmp_path)
    found = shard(log, catalogue, tmp_path / "shards", events=100)
    users = [
        set(pq.read_table(found.folder / f"{at:05d}.parquet")["user"].to_pylist())
        for at in range(len(found))
    ]
    assert sum(map(len, users)) == len(set.union(*users)) == 37


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"item_id": ["item 1"] * 499 + ["?"]},
            "row 500, column `item_id`: expected one of the 60 items",
        ),
        (
            {"reward": [0.0] * 300 + [math.nan] + [0.0] * 199},
            "row 301, column `reward`: expected a number from -1",
        ),
        ({"timestamp": [0] * 499 + [10**13]}, "row 500, column `timestamp`: expected seconds"),
        ({"user_id": None}, "expected the columns user_id"),
    ],
)
def test_a_bad_row_stops_the_sharding_and_is_named(tmp_path, monkeypatch, changes, expected):
    """The error counts rows from the beginning of the file, and the folder is not taken for shards."""
    monkeypatch.setattr(shard_writer, "ROWS", 64)
    log, catalogue = write_log(tmp_path, **changes)
    with pytest.raises(TableError, match=expected):
        shard(log, catalogue, tmp_path / "shards")
    with pytest.raises(TableError, match="found no shards"):
        Shards(tmp_path / "shards")


def write_shards(folder, found, shards=3) -> Shards:
    writer = Writer(folder, ITEMS)
    for at in range(shards):
        own = range(at, len(found), shards)
        columns = {
            "item": "items",
            "kind": "kinds",
            "liked": "liked",
            "context": "contexts",
            "time": "times",
        }
        table = {
            name: np.concatenate([getattr(found[row], field) for row in own])
            for name, field in columns.items()
        }
        writer.add({"user": np.repeat(np.array(own), [len(found[row]) for row in own]), **table})
    return writer.close(["view", "buy", "click"])


def test_an_epoch_out_of_core_asks_what_one_in_memory_asks(tmp_path):
    """Over an epoch the shards' lessons hold each question once, in another order every epoch, and validate on one."""
    found = histories(fresh_from=10)
    moment = 15 * DAY
    found = [replace(one, fresh=one.times > moment) for one in found]
    shards = replace(write_shards(tmp_path, found), fresh_after=moment)

    def asked(source, rng):
        batches = [(batch, questions) for batch, questions in source.learned(rng)]
        return [tuple(questions.target.tolist()) for _, questions in batches]

    memory = InMemory(found, SMALL, True, CPU)
    disk, rng = OutOfCore(shards, SMALL, True, CPU), np.random.default_rng(0)
    first, second = asked(disk, rng), asked(disk, rng)
    everything = sorted(target for batch in asked(memory, rng) for target in batch)
    assert sorted(target for batch in first for target in batch) == everything
    assert sorted(first) == sorted(second)
    assert first != second
    assert disk.batches == len(first)
    assert sum(len(questions.target) for _, questions in disk.validation()) > 0


def test_learning_from_shards_is_learning(tmp_path):
    """The warm start takes shards as it takes histories, and predicts the fresh events better for it."""
    found = histories(60)
    shards = replace(write_shards(tmp_path, found), fresh_after=17 * DAY)
    trace = warm_start(network(), shards, replace(SMALL, epochs=6), repeats=True)
    assert trace.validation[-1] < trace.validation[0] - 0.02
