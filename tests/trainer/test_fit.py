"""Training as a process: targets, batches, steps, early stopping, and resuming
after an interruption.
"""

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
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.checkpoint import Checkpoint
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import DivergedError, PolicyNetwork
from sanderling_trainer.policy.model.recurrence import recurrence
from sanderling_trainer.policy.training.batches import groups, training_batches
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.glibc_malloc import keep_memory
from sanderling_trainer.policy.training.metric_logger import TensorBoard
from sanderling_trainer.policy.training.objectives import CrossEntropy
from sanderling_trainer.policy.training.optimizer import Optimizer, Schedule
from sanderling_trainer.policy.training.policy_gradient import policy_gradient
from sanderling_trainer.policy.training.targets import targets_of
from sanderling_trainer.policy.training.training_state import TrainingState
from sanderling_trainer.policy.training.warm_start import validation_loss, warm_start

pytestmark = pytest.mark.lab

SMALL = Config(
    dim=8, state=12, hidden=10, epochs=4, batch_events=64, learning_rate=1e-2, dropout=0.1
)
ITEMS = 20


def network(config: Config = SMALL, items: int = ITEMS) -> PolicyNetwork:
    torch.manual_seed(config.seed)
    return PolicyNetwork(config, torch.randn(items, 6), torch.randn(2, 6), 3)


def history(
    rng: np.random.Generator, length: int, taste: int = 0, validation_from: int = 10**9
) -> History:
    """Return a history that keeps to every other item."""
    return History(
        items=2 * rng.integers(0, ITEMS // 2, length) + taste,
        kinds=rng.integers(0, 3, length),
        liked=rng.random(length) < 0.8,
        contexts=rng.integers(-1, 2, length),
        is_validation=np.arange(length) >= validation_from,
        times=np.sort(rng.integers(0, 20 * DAY, length)),
    )


def histories(users: int = 24, validation_from: int = 10**9) -> list[History]:
    rng = np.random.default_rng(0)
    return [history(rng, 12, user % 2, validation_from) for user in range(users)]


def naive_targets(found, visit_hours, horizon_days, repeats, validation):
    """Yield (row, position, context, day, targets) of every point, one visit after the other."""
    for row, one in enumerate(found):
        if len(one) == 0:
            continue
        wanted = one.liked
        if validation is not None:
            wanted = one.liked & (one.is_validation == validation)
        clock = np.maximum.accumulate(one.times)
        starts = [
            event
            for event in range(len(one))
            if event == 0
            or visit_hours == 0
            or clock[event] - clock[event - 1] > visit_hours * 3600
        ]
        for start, stop in zip(starts, [*starts[1:], len(one)], strict=True):
            end = stop
            horizon = clock[start] + horizon_days * DAY
            while horizon_days and end < len(one) and clock[end] < horizon:
                end += 1
            seen = set() if repeats else set(one.items[:start].tolist())
            targets = {int(one.items[event]) for event in range(start, end) if wanted[event]} - seen
            if targets and (validation is None or one.is_validation[start] == validation):
                yield row, start, one.contexts[start], one.times[start] // DAY, sorted(targets)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), max_size=5),
    visit_hours=st.sampled_from([0.0, 0.5, 6.0, 48.0]),
    horizon_days=st.sampled_from([0.0, 0.3, 3.0]),
    repeats=st.booleans(),
    validation=st.sampled_from([None, False, True]),
    seed=st.integers(0, 99),
)
def test_targets_equal_a_loop_over_events(
    lengths, visit_hours, horizon_days, repeats, validation, seed
):
    """Visits, targets, horizons and splits hold for any histories, empty and unsorted ones too."""
    rng = np.random.default_rng(seed)
    found = [history(rng, length, validation_from=int(rng.integers(0, 9))) for length in lengths]
    if found and len(found[0]) > 1:
        found[0].times[0] = 10 * DAY
    settings = (visit_hours, horizon_days, repeats, validation)
    points = targets_of(found, *settings)
    targets: list[list[int]] = [[] for _ in points.position]
    for point, target in zip(points.point, points.target, strict=True):
        targets[point].append(int(target))
    columns = (points.row, points.position, points.context, points.day, targets)
    assert list(zip(*columns, strict=True)) == list(naive_targets(found, *settings))
    for column in (points.row, points.position, points.point, points.target):
        assert column.dtype == np.int64


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 30), max_size=40), events=st.integers(1, 64))
def test_batches_hold_every_history_once_and_no_more_events_than_asked(lengths, events):
    """Every history with events is in one batch; only one longer than a batch exceeds its size."""
    made = list(groups(lengths, events))
    indices = sorted(index for group in made for index in group)
    assert indices == [index for index, length in enumerate(lengths) if length]
    for group in made:
        assert len(group) * max(lengths[index] for index in group) <= events or len(group) == 1


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
    """The hand-written gradient passes torch's check in float64, for inputs and decays."""
    torch.manual_seed(0)
    x = torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True)
    decay = torch.tensor([0.1, 0.6, 0.99], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(recurrence, (x, decay))


def test_an_interrupted_run_ends_bit_for_bit_as_if_it_had_not_been(tmp_path, monkeypatch):
    """Four epochs at once, or two, a crash and two more, give equal parameters and curves."""
    config = Config(**{**SMALL.__dict__, "accumulate": 2})
    found = histories(validation_from=10)
    straight, broken = network(config), network(config)
    whole = warm_start(TrainingContext(straight, found, config, repeats=True))
    finish_epoch = TrainingState.finish_epoch

    def crash(self, epoch, values):
        finish_epoch(self, epoch, values)
        if epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingState, "finish_epoch", crash)
    with pytest.raises(KeyboardInterrupt):
        warm_start(TrainingContext(broken, found, config, repeats=True), tmp_path / "run.pt")
    monkeypatch.undo()
    resumed = network(config)
    torch.manual_seed(12345)
    curves = warm_start(TrainingContext(resumed, found, config, repeats=True), tmp_path / "run.pt")
    assert curves == whole
    assert len(curves.loss) == 4
    after_resume, after_crash = dict(resumed.named_parameters()), dict(broken.named_parameters())
    for name, parameter in straight.named_parameters():
        assert torch.equal(parameter, after_resume[name]), name
        # Without a popularity history nothing trains these weights.
        if name != "popularity_weights":
            assert not torch.equal(parameter, after_crash[name]), name


def test_two_half_batches_make_the_step_of_one_whole_batch():
    """With `accumulate` 2 the gradients of two halves of equal weight add up to the whole's, and
    one step is taken.
    """
    config = Config(**{**SMALL.__dict__, "id_dropout": 0.0, "context_dropout": 0.0, "dropout": 0.0})
    found = [history(np.random.default_rng(user), 8) for user in range(8)]
    for one in found:
        one.liked[:] = True
    together, apart = network(config), network(config)
    context = TrainingContext(together, found, config, repeats=True)
    (whole,) = training_batches(context, found, None)
    optimizer = Optimizer(together, Schedule(1e-2, 0.1, epochs=2, batches=1))
    optimizer.accumulate_and_step(CrossEntropy(context)(*whole))

    context = TrainingContext(apart, found, config, repeats=True)
    optimizer = Optimizer(apart, Schedule(1e-2, 0.1, epochs=2, batches=2, accumulate=2))
    before = apart.w1.detach().clone()
    for half in (found[:4], found[4:]):
        assert torch.equal(apart.w1, before)
        ((batch, targets),) = training_batches(context, half, None)
        optimizer.accumulate_and_step(CrossEntropy(context)(batch, targets))
    for name, parameter in together.named_parameters():
        torch.testing.assert_close(parameter, dict(apart.named_parameters())[name], msg=name)


def test_gradients_left_at_the_end_of_an_epoch_are_not_carried_into_the_next():
    """Three batches at `accumulate` 2 make two steps and leave nothing; no batch makes no step."""
    made = network()
    optimizer = Optimizer(made, Schedule(1e-2, 0.0, epochs=1, batches=3, accumulate=2))
    optimizer.step()
    steps = []
    for _ in range(3):
        optimizer.accumulate_and_step(made.bias.sum() + made.w1.sum())
        steps.append(made.bias[0].item())
    optimizer.step()
    assert steps[0] == 0.0 > steps[1] == steps[2] > made.bias[0].item()
    assert made.bias.grad is None


def test_without_validation_events_the_run_goes_to_its_end_and_learns():
    """Every epoch runs, the validation loss is NaN, and the training loss falls."""
    curves = warm_start(TrainingContext(network(), histories(), SMALL, repeats=True))
    assert len(curves.loss) == SMALL.epochs
    assert all(math.isnan(value) for value in curves.validation)
    assert curves.loss[-1] < curves.loss[0] - 0.1


def test_an_empty_log_is_no_error():
    """An empty log leaves the network as it was."""
    made = network()
    before = {name: parameter.detach().clone() for name, parameter in made.named_parameters()}
    warm_start(TrainingContext(made, [], SMALL, repeats=True))
    assert all(torch.equal(parameter, before[name]) for name, parameter in made.named_parameters())


def test_it_stops_early_and_keeps_the_best():
    """After four epochs of worse validation loss it stops, and the network is the best epoch's."""
    config = Config(**{**SMALL.__dict__, "epochs": 40, "learning_rate": 0.2, "weight_decay": 0.0})
    found = histories(validation_from=9)
    context = TrainingContext(network(config), found, config, repeats=True)
    curves = warm_start(context)
    assert len(curves.loss) < 40
    loss = validation_loss(CrossEntropy(context), training_batches(context, found, True))
    assert loss == pytest.approx(min(curves.validation), rel=1e-6)


def test_tensorboard_gets_an_event_file(tmp_path):
    """The curves of a run with popularity are in a file that TensorBoard reads back."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = histories(validation_from=10)
    popularity = PopularityHistory.of(np.arange(5), np.arange(5), np.arange(5) * DAY, ITEMS)
    context = TrainingContext(network(), found, SMALL, True, popularity, TensorBoard(tmp_path))
    curves = warm_start(context)
    assert list(tmp_path.glob("events.out.tfevents*"))
    read = EventAccumulator(str(tmp_path)).Reload()
    losses = [point.value for point in read.Scalars("warm start/loss")]
    assert losses == pytest.approx(curves.loss)


def test_keeping_memory_is_harmless_twice():
    """On Linux with glibc it returns True each time, elsewhere False."""
    assert keep_memory() == keep_memory() == sys.platform.startswith("linux")


def decisions_of(found: list[History], rows: list[int], **fields) -> Decisions:
    """Return decisions on slates of two of histories 0, 1, 2…, those with the given rows."""
    rng = np.random.default_rng(3)
    m = len(found)
    made = Decisions(
        history=np.arange(m),
        position=np.full(m, 6),
        items=np.stack([rng.permutation(ITEMS)[:2] for _ in range(m)]),
        marginal=rng.uniform(0.05, 1.0, (m, 2)),
        conditional=np.ones((m, 2)),
        reward=rng.choice([-1.0, 1.0], (m, 2)).astype(np.float32),
        judged=rng.random((m, 2)) < 0.9,
        context=np.full(m, -1),
        ranks=np.zeros((m, 2), np.int64),
        group=np.arange(m),
    )
    taken = vars(made.take(np.array(rows)))
    return Decisions(**taken | {name: np.array(column)[rows] for name, column in fields.items()})


def test_a_decision_that_survived_shedding_with_one_half_counts_twice():
    """A policy learns the same from decisions that stand for two as from each of them twice."""
    found = histories(8)
    settings = Config(
        **vars(SMALL) | {"batch_events": 10**6, "kl": 0.0, "supervision": 0.0, "policy_epochs": 3}
    )
    learned = []
    for log in (
        decisions_of(
            found, list(range(8)), pass_probability=[0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5]
        ),
        decisions_of(found, [0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 7]),
        decisions_of(found, list(range(8))),
    ):
        policy = network(settings)
        policy_gradient(TrainingContext(policy, found, settings, repeats=True), log)
        learned.append(torch.cat([tensor.flatten() for tensor in policy.parameters()]).detach())
    torch.testing.assert_close(learned[0], learned[1], atol=1e-5, rtol=1e-3)
    assert (learned[0] - learned[2]).abs().max() > 1e-3


def test_noisy_rewards_count_by_the_inverse_of_their_variance():
    """Flipped with probability q, a corrected reward has 1 / (1 - 2q)² times the variance."""
    log = decisions_of(
        histories(4),
        list(range(4)),
        flip_probability=[0.0, 0.25, 0.4, 0.0],
        pass_probability=[1.0, 1.0, 0.5, 1.0],
    )
    np.testing.assert_allclose(log.weights() / log.weights()[0], [1.0, 0.25, 0.08, 1.0])
    assert log.weights().mean() == pytest.approx(1.0)


def test_no_decision_outweighs_the_log():
    """However improbable its survival, a decision counts like 64 at most."""
    log = decisions_of(
        histories(4), list(range(4)), pass_probability=[1.0, 1e-300, 2.0**-20, 2.0**-5]
    )
    np.testing.assert_allclose(log.weights() / log.weights()[0], [1.0, 64.0, 64.0, 32.0])


def test_a_policy_that_diverged_raises_and_is_never_written(tmp_path):
    """A NaN in a context vector ends training with an error, and no checkpoint can be written."""
    found, policy = histories(8), network()
    policy.contexts[1] = math.nan
    decisions = decisions_of(found, list(range(8)), context=[1] * 8)
    with pytest.raises(DivergedError, match="project"):
        policy_gradient(TrainingContext(policy, found, SMALL, repeats=True), decisions)
    with pytest.raises(DivergedError, match="training diverged"):
        checkpoint.save(tmp_path / "next", Checkpoint(policy, None, SMALL, None, None, None), {})
    assert not (tmp_path / "next").exists()
