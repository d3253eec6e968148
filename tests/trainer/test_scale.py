"""Training beyond memory: the sampled softmax, steps on rows of a table, shards on disk."""

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
from sanderling_trainer.data.histories import History, histories_of, policy_kinds
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.data.shard_writer import shard_histories, shard_log
from sanderling_trainer.data.shards import Shards
from sanderling_trainer.data.tables import Catalog, read_interactions
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.batch_source import InMemory, OutOfCore
from sanderling_trainer.policy.training.batches import (
    PopularityTable,
    first_seen,
    seen_before,
    seen_pairs,
    training_batches,
)
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.objectives import CrossEntropy
from sanderling_trainer.policy.training.optimizer import RowAdamW
from sanderling_trainer.policy.training.sampled_softmax import Proposal
from sanderling_trainer.policy.training.warm_start import warm_start, warm_start_objective

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


def histories(users: int = 24, length: int = 12, validation_from: int = 10**9) -> list[History]:
    """Return users who keep to every other item."""
    rng = np.random.default_rng(0)
    return [
        History(
            items=2 * rng.integers(0, ITEMS // 2, length) + user % 2,
            kinds=rng.integers(0, 3, length),
            liked=rng.random(length) < 0.8,
            contexts=rng.integers(-1, 2, length),
            is_validation=np.arange(length) >= validation_from,
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


def popularity_table() -> PopularityTable:
    popularity = PopularityHistory.of(
        np.arange(30), np.arange(30) % 7, np.arange(30) * DAY // 2, ITEMS
    )
    return PopularityTable(popularity, CPU)


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("with_popularity", [True, False])
@pytest.mark.parametrize("visit_hours", [0.0, 30.0])
def test_with_every_item_drawn_once_the_sampled_softmax_is_the_full_one(
    repeats, with_popularity, visit_hours
):
    """With q uniform and all items drawn, loss and gradients equal those of the full softmax, for
    points of one target and of several.
    """
    made = network().eval()
    config = replace(SMALL, negatives=ITEMS, visit_hours=visit_hours)
    table = popularity_table() if with_popularity else None
    context = TrainingContext(made, histories(), config, repeats)
    most = 0
    for batch, targets in training_batches(context, context.histories, None):
        most = max(most, int(targets.point.bincount().max()))
        uniform = Proposal.of(np.zeros(ITEMS, np.int64), CPU, uniform=1.0)
        everything = Everything(uniform.log_q, uniform.cumulative)
        whole = CrossEntropy(context, table)(batch, targets)
        sampled = CrossEntropy(context, table, everything)(batch, targets)
        torch.testing.assert_close(sampled, whole, rtol=1e-5, atol=1e-5)
        expected, found = gradient(made, whole), gradient(made, sampled)
        assert expected.keys() == found.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5, msg=name)
    assert (most > 1) == (visit_hours > 0)


def test_the_corrected_sample_estimates_the_partition_function_without_bias():
    """The mean over draws of Σ exp(s + correction) is Σ exp(s) over all items."""
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


@pytest.mark.parametrize(("items", "is_sampled"), [(5_000, False), (5_001, True)])
def test_catalogs_up_to_the_default_size_are_scored_in_full(items, is_sampled):
    """The default samples above 5,000 items."""
    context = TrainingContext(network(Config(dim=8), items), histories(), Config(dim=8), True)
    objective = warm_start_objective(context, InMemory(context, context.histories))
    assert (objective.proposal is not None) == is_sampled


def test_draws_follow_the_proposal():
    """Frequencies of a million draws are within five standard errors of q, half uniform."""
    counts = np.array([0, 10, 30, 0, 60])
    proposal = Proposal.of(counts, CPU).fixed()
    q = 0.1 + 0.5 * counts / 100
    np.testing.assert_allclose(proposal.log_q.exp(), q, rtol=1e-6)
    found = np.bincount(proposal.draw(10**6), minlength=5) / 10**6
    assert (np.abs(found - q) < 5 * np.sqrt(q / 10**6)).all()


def test_the_gradient_approaches_the_full_one_as_the_sample_grows():
    """The distance of the mean gradient from the full softmax's falls with S, to a
    twentieth of its length.
    """
    made = network(items=2000).eval()
    context = TrainingContext(made, histories(4, 6), SMALL, repeats=False)
    ((batch, targets),) = training_batches(context, context.histories, None)
    whole = gradient(made, CrossEntropy(context)(batch, targets))
    distances = []
    for negatives in (8, 128, 8192):
        proposal = Proposal.of(np.ones(2000), CPU).fixed()
        sampled = replace(context, config=replace(SMALL, negatives=negatives))
        objective = CrossEntropy(sampled, proposal=proposal)
        found = [gradient(made, objective(batch, targets)) for _ in range(20)]
        mean = {name: torch.stack([one[name] for one in found]).mean(0) for name in whole}
        distances.append(
            sum((mean[name] - whole[name]).pow(2).sum() for name in whole).sqrt().item()
        )
    length = sum(value.pow(2).sum() for value in whole.values()).sqrt().item()
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < length / 20


def test_the_sparse_form_of_seen_items_equals_the_dense_one():
    """The pairs of points and items seen before are the true cells of `seen_before`."""
    context = TrainingContext(network(), histories(), SMALL, repeats=True)
    for batch, targets in training_batches(context, context.histories, None):
        expected = seen_before(first_seen(batch, ITEMS), targets.row, targets.position)
        found = torch.zeros_like(expected)
        found[seen_pairs(batch.items, targets.row, targets.position)] = True
        assert torch.equal(found, expected)


def test_a_step_on_rows_is_the_step_on_the_whole_table():
    """RowAdamW equals AdamW without momentum where a gradient touches every row, and changes no
    row that it does not touch.
    """
    torch.manual_seed(0)
    start = torch.randn(6, 3)
    rows, whole = (torch.nn.Parameter(start.clone()) for _ in range(2))
    steps = [
        RowAdamW([rows], 0.1, 0.5),
        torch.optim.AdamW([whole], 0.1, betas=(0.0, 0.999), weight_decay=0.5),
    ]
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


def test_a_row_that_one_step_touches_moves_as_far_as_momentum_would_take_it():
    """Row 1 has one gradient, at step 500: AdamW moves it in many steps, RowAdamW in one, and both
    as far within a tenth.
    """
    rows, whole = (torch.nn.Parameter(torch.zeros(2, 1)) for _ in range(2))
    by_rows = RowAdamW([rows], 1e-3, 0.0)
    dense = torch.optim.AdamW([whole], 1e-3, weight_decay=0.0)
    for at in range(600):
        touched = torch.tensor([0, 1] if at == 500 else [0])
        values = torch.ones(len(touched), 1)
        rows.grad = torch.sparse_coo_tensor(touched[None], values, (2, 1), check_invariants=True)
        whole.grad = rows.grad.to_dense()
        by_rows.step()
        dense.step()
    assert rows[1].item() == pytest.approx(whole[1].item(), rel=0.1)
    assert rows[0].item() == pytest.approx(whole[0].item(), rel=0.1)


def test_draws_repeat_by_seed():
    """Two losses with the same seed are equal bit for bit, those with another seed are not."""
    made = network(items=2000).eval()
    context = TrainingContext(made, histories(4, 6), SMALL, repeats=False)
    ((batch, targets),) = training_batches(context, context.histories, None)
    proposal = Proposal.of(np.ones(2000), CPU)
    losses = [
        CrossEntropy(context, proposal=proposal.fixed(seed))(batch, targets).item()
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_large_catalog_is_learned_by_rows_and_resumes_bit_for_bit(tmp_path):
    """Above `full_softmax` the residual's gradient is sparse, the validation loss falls, and a
    resumed run equals an uninterrupted one.
    """
    config = replace(SMALL, full_softmax=ITEMS - 1, epochs=6)
    straight = network(config)
    context = TrainingContext(straight, histories(validation_from=10), config, repeats=True)
    whole = warm_start(context)
    assert whole.validation[-1] < whole.validation[0] - 0.02

    broken = replace(context, network=network(config), metric_logger=_StopAfter(2))
    with pytest.raises(KeyboardInterrupt):
        warm_start(broken, tmp_path / "run.pt")
    assert warm_start(replace(context, network=network(config)), tmp_path / "run.pt") == whole

    few = replace(context, config=replace(config, negatives=4))
    ((batch, targets),) = training_batches(few, histories(2, 3), None)
    proposal = Proposal.of(np.ones(ITEMS), CPU)
    straight.zero_grad()
    CrossEntropy(few, proposal=proposal)(batch, targets).backward()
    assert straight.residual.grad.is_sparse
    assert straight.residual.grad.coalesce().indices().shape[1] <= 6 + 4


class _StopAfter:
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def log(self, stage, epoch, values):
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
    return folder / "log.parquet", Catalog(ids, ids, [{"id": one} for one in ids])


def events_of(history: History, contexts) -> tuple:
    """Return the events of a history, sorted so that ties of time do not matter."""
    words = [contexts[row] if row >= 0 else "" for row in history.contexts]
    rows = zip(
        history.times,
        history.items,
        history.kinds,
        history.liked,
        words,
        history.is_validation,
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
    """Histories, kinds, contexts, counts, popularity and lengths equal those of the log read
    whole, in small parts.
    """
    monkeypatch.setattr(shard_writer, "ROWS", 64)
    log, catalog = write_log(tmp_path, **changes)
    shards = shard_log(log, catalog, tmp_path / "shards", events=100)
    found = replace(shards, validation_after=20 * DAY)
    whole = read_interactions(log, catalog)
    assert len(found) == 5
    assert (found.events, found.kinds) == (len(whole), policy_kinds(whole.kinds))
    histories = [history for index in range(len(found)) for history in found.read(index)]
    contexts = found.contexts
    expected = histories_of(whole, policy_kinds(whole.kinds), 20 * DAY)
    assert sorted(events_of(one, contexts) for one in histories) == sorted(
        events_of(one, whole.contexts) for one in expected
    )
    assert all((np.diff(one.times) >= 0).all() for one in histories)
    assert [len(one) for one in found.read(2)] == found.lengths(2).tolist()
    np.testing.assert_array_equal(found.counts(), np.bincount(whole.item, minlength=ITEMS))
    kept = (whole.reward > 0) & (whole.time <= 20 * DAY)
    popularity = found.popularity()
    wanted = PopularityHistory.of(whole.user[kept], whole.item[kept], whole.time[kept], ITEMS)
    for name in ("day", "row", "users"):
        np.testing.assert_array_equal(getattr(popularity, name), getattr(wanted, name))
    assert not list((tmp_path / "shards").glob("tmp*"))


def test_a_user_is_in_one_shard(tmp_path):
    """No user's hash is in two shards, and there are as many users as in the log."""
    log, catalog = write_log(tmp_path)
    found = shard_log(log, catalog, tmp_path / "shards", events=100)
    users = [
        set(pq.read_table(found.folder / f"{index:05d}.parquet")["user"].to_pylist())
        for index in range(len(found))
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
    """The error counts rows from the beginning of the file, and the folder cannot
    be read as shards.
    """
    monkeypatch.setattr(shard_writer, "ROWS", 64)
    log, catalog = write_log(tmp_path, **changes)
    with pytest.raises(TableError, match=expected):
        shard_log(log, catalog, tmp_path / "shards")
    with pytest.raises(TableError, match="found no shards"):
        Shards(tmp_path / "shards")


def write_shards(folder, found) -> Shards:
    return shard_histories(found, folder, ITEMS, ["view", "buy", "click"], shards=3)


def test_an_epoch_out_of_core_has_the_targets_of_one_in_memory(tmp_path):
    """An epoch from shards has each target once, in another order every epoch, and
    validates on one shard.
    """
    found = histories(validation_from=10)
    moment = 15 * DAY
    found = [replace(one, is_validation=one.times > moment) for one in found]
    shards = replace(write_shards(tmp_path, found), validation_after=moment)

    def epoch(source, rng):
        return [tuple(targets.target.tolist()) for _, targets in source.training(rng)]

    context = TrainingContext(network(), found, SMALL, repeats=True)
    memory, disk = InMemory(context, found), OutOfCore(context, shards)
    rng = np.random.default_rng(0)
    first, second = epoch(disk, rng), epoch(disk, rng)
    everything = sorted(target for batch in epoch(memory, rng) for target in batch)
    assert sorted(target for batch in first for target in batch) == everything
    assert sorted(first) == sorted(second)
    assert first != second
    assert disk.batches == len(first)
    assert sum(len(targets.target) for _, targets in disk.validation()) > 0


def test_the_warm_start_learns_from_shards(tmp_path):
    """It takes shards as it takes histories, and the validation loss falls."""
    found = histories(60)
    shards = replace(write_shards(tmp_path, found), validation_after=17 * DAY)
    curves = warm_start(TrainingContext(network(), shards, replace(SMALL, epochs=6), repeats=True))
    assert curves.validation[-1] < curves.validation[0] - 0.02
