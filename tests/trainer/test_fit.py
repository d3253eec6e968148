"""Learning as a process: what it predicts, how it descends, stops, is interrupted and goes on."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.data.popularity import DAY, Trends
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import DivergedError, PolicyNetwork
from sanderling_trainer.policy.model.recurrence import recurrence
from sanderling_trainer.policy.training import training_state
from sanderling_trainer.policy.training import warm_start as fit
from sanderling_trainer.policy.training.batches import groups, lessons
from sanderling_trainer.policy.training.glibc_malloc import keep_memory
from sanderling_trainer.policy.training.metric_logger import TensorBoard
from sanderling_trainer.policy.training.objectives import CrossEntropy
from sanderling_trainer.policy.training.optimizer import Optimiser
from sanderling_trainer.policy.training.policy_gradient import policy_gradient
from sanderling_trainer.policy.training.targets import points_of
from sanderling_trainer.policy.training.warm_start import warm_start

pytestmark = pytest.mark.lab

SMALL = Config(
    dim=8, state=12, hidden=10, epochs=4, batch_events=64, learning_rate=1e-2, dropout=0.1
)
ITEMS = 20


def network(config: Config = SMALL, items: int = ITEMS) -> PolicyNetwork:
    torch.manual_seed(config.seed)
    return PolicyNetwork(config, torch.randn(items, 6), torch.randn(2, 6), 3)


def history(
    rng: np.random.Generator, length: int, taste: int = 0, fresh_from: int = 10**9
) -> History:
    """Return a history that keeps to every other item."""
    return History(
        items=2 * rng.integers(0, ITEMS // 2, length) + taste,
        kinds=rng.integers(0, 3, length),
        liked=rng.random(length) < 0.8,
        contexts=rng.integers(-1, 2, length),
        fresh=np.arange(length) >= fresh_from,
        times=np.sort(rng.integers(0, 20 * DAY, length)),
    )


def histories(users: int = 24, fresh_from: int = 10**9) -> list[History]:
    rng = np.random.default_rng(0)
    return [history(rng, 12, user % 2, fresh_from) for user in range(users)]


def slow_points(found, visit_hours, horizon_days, repeats, fresh):
    """Return (place, at, context, day, targets) of every point, one visit after the other."""
    for place, one in enumerate(found):
        if len(one) == 0:
            continue
        wanted = one.liked if fresh is None else one.liked & (one.fresh == fresh)
        clock = np.maximum.accumulate(one.times)
        starts = [
            at
            for at in range(len(one))
            if at == 0 or visit_hours == 0 or clock[at] - clock[at - 1] > visit_hours * 3600
        ]
        for start, stop in zip(starts, [*starts[1:], len(one)], strict=True):
            end = stop
            while (
                horizon_days and end < len(one) and clock[end] < clock[start] + horizon_days * DAY
            ):
                end += 1
            had = set() if repeats else {one.items[at] for at in range(start)}
            targets = {int(one.items[at]) for at in range(start, end) if wanted[at]} - had
            if targets and (fresh is None or one.fresh[start] == fresh):
                yield place, start, one.contexts[start], one.times[start] // DAY, sorted(targets)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=5),
    visit_hours=st.sampled_from([0.0, 0.5, 6.0, 48.0]),
    horizon_days=st.sampled_from([0.0, 0.3, 3.0]),
    repeats=st.booleans(),
    fresh=st.sampled_from([None, False, True]),
    seed=st.integers(0, 99),
)
def test_points_are_those_of_the_slow_twin(
    lengths, visit_hours, horizon_days, repeats, fresh, seed
):
    """Visits, targets, horizons and splits equal a loop over events, for any histories, empty and unsorted ones too."""
    rng = np.random.default_rng(seed)
    found = [history(rng, length, fresh_from=int(rng.integers(0, 9))) for length in lengths]
    if found and len(found[0]) > 1:
        found[0].times[0] = 10 * DAY
    points = points_of(found, visit_hours, horizon_days, repeats, fresh)
    expected = list(slow_points(found, visit_hours, horizon_days, repeats, fresh))
    targets: list[list[int]] = [[] for _ in points.at]
    for point, target in zip(points.point, points.target, strict=True):
        targets[point].append(int(target))
    got = list(zip(points.place, points.at, points.context, points.day, targets, strict=True))
    assert got == expected
    assert all(
        column.dtype == np.int64
        for column in (points.place, points.at, points.point, points.target)
    )


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 30), max_size=40), events=st.integers(1, 64))
def test_batches_hold_every_history_once_and_no_more_events_than_asked(lengths, events):
    """Every history that has events is in one batch, and only one that is longer than a batch may exceed it."""
    made = list(groups(lengths, events))
    assert sorted(at for group in made for at in group) == [
        at for at, length in enumerate(lengths) if length
    ]
    assert all(
        len(group) * max(lengths[at] for at in group) <= events or len(group) == 1 for group in made
    )


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13, 64])
def test_the_scan_is_the_recurrence_written_out(length):
    """The parallel scan equals a loop over events in float64."""
    torch.manual_seed(length)
    x, decay = torch.randn(3, length, 5, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    expected = [x[:, 0]]
    for t in range(1, length):
        expected.append(decay * expected[-1] + x[:, t])
    torch.testing.assert_close(recurrence(x, decay), torch.stack(expected, dim=1))


@pytest.mark.parametrize("length", [1, 2, 6])
def test_the_gradient_of_the_scan_is_that_of_finite_differences(length):
    """The written-out gradient passes torch's check in float64, for inputs and decays."""
    torch.manual_seed(0)
    x = torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True)
    decay = torch.tensor([0.1, 0.6, 0.99], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(recurrence, (x, decay))


def test_an_interrupted_run_ends_bit_for_bit_as_if_it_had_not_been(tmp_path, monkeypatch):
    """Four epochs in one go and two, a crash, and two more leave equal parameters and equal curves."""
    config = Config(**{**SMALL.__dict__, "accumulate": 2})
    straight, broken = network(config), network(config)
    whole = warm_start(straight, histories(fresh_from=10), config, repeats=True)
    finish = training_state.Run.finish

    def crash(self, epoch, found):
        finish(self, epoch, found)
        if epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit.training_state.Run, "finish", crash)
    with pytest.raises(KeyboardInterrupt):
        warm_start(
            broken, histories(fresh_from=10), config, repeats=True, resume=tmp_path / "run.pt"
        )
    monkeypatch.undo()
    resumed = network(config)
    torch.manual_seed(12345)
    trace = warm_start(
        resumed, histories(fresh_from=10), config, repeats=True, resume=tmp_path / "run.pt"
    )
    assert trace == whole
    assert len(trace.loss) == 4
    for name, parameter in straight.named_parameters():
        assert torch.equal(parameter, dict(resumed.named_parameters())[name]), name
        assert (
            not torch.equal(parameter, dict(broken.named_parameters())[name])
            or name == "trend_weights"
        ), name


def test_two_half_batches_make_the_step_of_one_whole_batch():
    """With `accumulate` 2 the gradients of two halves of equal weight add up to the whole's, and one step is taken."""
    config = Config(**{**SMALL.__dict__, "id_dropout": 0.0, "context_dropout": 0.0, "dropout": 0.0})
    found = [history(np.random.default_rng(user), 8) for user in range(8)]
    for one in found:
        one.liked[:] = True
    together, apart = network(config), network(config)
    (whole,) = lessons(found, config, True, torch.device("cpu"), None)
    optimiser = Optimiser(together, 1e-2, 0.1, 2, 1, config)
    optimiser.accumulate_and_step(CrossEntropy(together, config, True)(*whole))
    optimiser = Optimiser(apart, 1e-2, 0.1, 2, 2, Config(**{**config.__dict__, "accumulate": 2}))
    before = apart.w1.detach().clone()
    for half in (found[:4], found[4:]):
        assert torch.equal(apart.w1, before)
        ((batch, asked),) = lessons(half, config, True, torch.device("cpu"), None)
        optimiser.accumulate_and_step(CrossEntropy(apart, config, True)(batch, asked))
    for name, parameter in together.named_parameters():
        torch.testing.assert_close(parameter, dict(apart.named_parameters())[name], msg=name)


def test_what_is_added_at_the_end_of_an_epoch_is_not_carried_into_the_next():
    """Three batches at `accumulate` 2 make two steps, and nothing is left; without batches there is none."""
    config = Config(**{**SMALL.__dict__, "accumulate": 2})
    made = network(config)
    optimiser = Optimiser(made, 1e-2, 0.0, 1, 3, config)
    optimiser.step()
    steps = []
    for _ in range(3):
        optimiser.accumulate_and_step(made.bias.sum() + made.w1.sum())
        steps.append(made.bias[0].item())
    optimiser.step()
    assert steps[0] == 0.0 > steps[1] == steps[2] > made.bias[0].item()
    assert made.bias.grad is None


def test_without_fresh_events_the_run_goes_to_its_end_and_learns():
    """Nothing validates, every epoch runs, the loss falls, and the last parameters are kept."""
    trace = warm_start(network(), histories(), SMALL, repeats=True)
    assert len(trace.loss) == SMALL.epochs
    assert all(math.isnan(value) for value in trace.validation)
    assert trace.loss[-1] < trace.loss[0] - 0.1


def test_nothing_to_learn_from_is_no_error():
    """An empty log leaves the network as it was."""
    made = network()
    before = {name: parameter.detach().clone() for name, parameter in made.named_parameters()}
    warm_start(made, [], SMALL, repeats=True)
    assert all(torch.equal(parameter, before[name]) for name, parameter in made.named_parameters())


def test_it_stops_early_and_keeps_the_best():
    """When fresh events are predicted worse for four epochs it stops, and the network is the best epoch's."""
    config = Config(**{**SMALL.__dict__, "epochs": 40, "learning_rate": 0.2, "weight_decay": 0.0})
    found = histories(fresh_from=9)
    made = network(config)
    trace = warm_start(made, found, config, repeats=True)
    assert len(trace.loss) < 40
    fresh = lessons(found, config, True, torch.device("cpu"), True)
    assert fit.validation_loss(CrossEntropy(made, config, True), fresh) == pytest.approx(
        min(trace.validation), rel=1e-6
    )


def test_tensorboard_gets_an_event_file(tmp_path):
    """The curves of a run, trends included, are in a file that TensorBoard reads back."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = histories(fresh_from=10)
    trends = Trends.of(np.arange(5), np.arange(5), np.arange(5) * DAY, ITEMS)
    trace = warm_start(network(), found, SMALL, True, trends=trends, journal=TensorBoard(tmp_path))
    assert list(tmp_path.glob("events.out.tfevents*"))
    read = EventAccumulator(str(tmp_path)).Reload()
    losses = [point.value for point in read.Scalars("warm start/loss")]
    assert losses == pytest.approx(trace.loss)


def test_keeping_memory_is_harmless_twice():
    """On Linux with glibc it says that it was done, again and again; elsewhere that it was not."""
    assert keep_memory() == keep_memory() == sys.platform.startswith("linux")


def decisions_of(found: list[History], rows: list[int], **fields) -> Decisions:
    """Return decisions on slates of two of histories 0, 1, 2…, those with the given rows."""
    rng = np.random.default_rng(3)
    m = len(found)
    made = Decisions(
        history=np.arange(m),
        at=np.full(m, 6),
        items=np.stack([rng.permutation(ITEMS)[:2] for _ in range(m)]),
        logged=rng.uniform(0.05, 1.0, (m, 2)),
        conditional=np.ones((m, 2)),
        reward=rng.choice([-1.0, 1.0], (m, 2)).astype(np.float32),
        judged=rng.random((m, 2)) < 0.9,
        context=np.full(m, -1),
        ranks=np.zeros((m, 2), np.int64),
        group=np.arange(m),
    )
    chosen = {name: column[rows] for name, column in vars(made).items()}
    return Decisions(**chosen | {name: np.array(column)[rows] for name, column in fields.items()})


def test_what_survived_shedding_with_a_half_counts_like_two():
    """A policy learns the same from decisions that stand for two as from each of them twice."""
    found = histories(8)
    settings = Config(
        **vars(SMALL) | {"batch_events": 10**6, "kl": 0.0, "supervision": 0.0, "policy_epochs": 3}
    )
    learned = []
    for log in (
        decisions_of(found, list(range(8)), survived=[0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5]),
        decisions_of(found, [0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 7]),
        decisions_of(found, list(range(8))),
    ):
        policy = network(settings)
        policy_gradient(policy, found, log, settings, repeats=True)
        learned.append(torch.cat([tensor.flatten() for tensor in policy.parameters()]).detach())
    torch.testing.assert_close(learned[0], learned[1], atol=1e-5, rtol=1e-3)
    assert (learned[0] - learned[2]).abs().max() > 1e-3


def test_noisy_rewards_count_by_the_inverse_of_their_variance():
    """With a chance q of being flipped a corrected reward has variance 1 / (1 - 2q)² for an exact one's 1."""
    log = decisions_of(
        histories(4),
        list(range(4)),
        flip_probability=[0.0, 0.25, 0.4, 0.0],
        survived=[1.0, 1.0, 0.5, 1.0],
    )
    np.testing.assert_allclose(log.weights() / log.weights()[0], [1.0, 0.25, 0.08, 1.0])
    assert log.weights().mean() == pytest.approx(1.0)


def test_no_decision_outweighs_the_log():
    """A survival that nobody would believe counts like 64 decisions, no more."""
    log = decisions_of(histories(4), list(range(4)), survived=[1.0, 1e-300, 2.0**-20, 2.0**-5])
    np.testing.assert_allclose(log.weights() / log.weights()[0], [1.0, 64.0, 64.0, 32.0])


def test_a_policy_that_diverged_is_told_of_and_never_written(tmp_path):
    """A context that is no number ends learning with an error, and there is no checkpoint of what came out."""
    found, policy = histories(8), network()
    policy.contexts[1] = math.nan
    with pytest.raises(DivergedError, match="project"):
        policy_gradient(
            policy, found, decisions_of(found, list(range(8)), context=[1] * 8), SMALL, repeats=True
        )
    with pytest.raises(DivergedError, match="learning diverged"):
        checkpoint.save(tmp_path / "next", policy, None, SMALL, None, {}, None)
    assert not (tmp_path / "next").exists()
