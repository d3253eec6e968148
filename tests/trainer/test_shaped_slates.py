"""Slates that the app shaped, from real devices: what judge and learners make of them."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from sanderling import Engine
from sanderling.bundle import manifest as manifests
from sanderling.bundle.manifest import Arm, Experiment, Exploration
from sanderling.events.schema import Decision
from sanderling_trainer.evaluation import ope
from sanderling_trainer.event_log.examples import examples_of
from sanderling_trainer.event_log.merge_examples import merge_examples
from sanderling_trainer.event_log.reader import EventLog
from sanderling_trainer.jobs.candidate import orders_of
from sanderling_trainer.jobs.trust import active_policy, believed
from sanderling_trainer.policy.training.click_regression import ClickRegression
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.policy_gradient import policy_gradient
from tests.support.bundles import KINDS, TEXT, write_bundle
from tests.support.engines import stored
from tests.support.fakes import FakeClock, FakeEntropy
from tests.support.float_networks import CONFIG, DIM, ITEMS, METADATA, SLOTS, float_network

pytestmark = pytest.mark.lab

IDS = [f"item-{row}" for row in range(ITEMS)]
NEWCOMERS = range(100, 120)
VISITS = 20


class Fleet:
    """What a few devices logged under one exploration plan, and the policy that they had."""

    def __init__(self, folder, plan: Exploration, shape, devices: int = 4, experiment=None):
        self.bundle = folder / "bundle"
        write_bundle(self.bundle, items=ITEMS, dim=DIM, exploration=plan, newcomers=NEWCOMERS)
        manifest = msgspec.structs.replace(manifests.read(self.bundle), experiment=experiment)
        (self.bundle / manifests.MANIFEST).write_bytes(manifests.dump(manifest))
        rng = np.random.default_rng(0)
        events = {}
        for device in range(devices):
            options = {"background": False, "clock": FakeClock(), "entropy": FakeEntropy(device)}
            with Engine.open(self.bundle, folder / f"{device}", **options) as engine:
                for _ in range(VISITS):
                    slate = engine.recommend("anna", SLOTS, **shape(rng))
                    clicks = dict(zip(slate, 2.0 * (rng.random(SLOTS) < 0.3) - 1.0, strict=True))
                    engine.reward_all(slate, clicks)
                logged = stored(engine)
            events[logged[0].install, logged[0].user] = logged
        self.events = [event for _, each in sorted(events.items()) for event in each]
        self.examples = examples_of(EventLog(events=events), IDS, KINDS, TEXT)
        self.config = replace(
            CONFIG,
            **{name: getattr(plan, name) for name in ("epsilon", "scheme", "guarded", "newcomers")},
        )
        self.found = believed(self.examples, METADATA, self.config)
        network = float_network(self.bundle)
        self.context = TrainingContext(network, self.found.histories, self.config, repeats=True)

    @property
    def decisions(self) -> list[Decision]:
        return [event for event in self.events if isinstance(event, Decision)]

    def judged_against_itself(self):
        """Return the usable decisions, their slates, the orders, and the sums of the judge."""
        policy = active_policy(METADATA, self.config)
        decisions, slates, left_out = ope.usable(self.found.decisions, policy)
        assert left_out == {}
        orders = orders_of(self.context, self.context, decisions)
        sums = ope.judge(slates, orders, ITEMS, np.random.default_rng(0)).sums
        return decisions, slates, orders, sums


def pins(rng):
    """Return pins of random items to some slots: good ones too, and none at times."""
    slots = rng.choice(SLOTS, rng.integers(0, 4), replace=False).tolist()
    rows = rng.choice(ITEMS, len(slots), replace=False).tolist()
    return {"pin": {slot: IDS[row] for slot, row in zip(slots, rows, strict=True)}}


def forged(fleet):
    """Return the decisions with tiny propensities in one slot that the scheme drew."""
    found = fleet.found.decisions
    row, slot = (column[-1] for column in np.nonzero(~found.pinned & ~found.newcomer))
    conditional, marginal = found.conditional.copy(), found.marginal.copy()
    conditional[row, slot] *= 1e-11
    marginal[row, slot] *= 1e-11
    return replace(found, conditional=conditional, marginal=marginal)


PLANS = [
    Exploration("sequential", 0.3, 20, newcomers=0.0),
    Exploration("sequential", 0.3, 20, guarded=2, newcomers=0.5),
    Exploration("mixture", 0.3, 20, guarded=1, newcomers=0.3),
    Exploration("softmax", 0.3, 20, temperature=0.7, guarded=1, newcomers=0.3),
]


@pytest.fixture(scope="module", params=PLANS, ids=lambda plan: f"{plan.scheme}-{plan.guarded}")
def pinned(request, tmp_path_factory):
    """Devices whose app pins, under each scheme."""
    return Fleet(tmp_path_factory.mktemp("pinned"), request.param, pins)


def test_pinned_decisions_are_believed_and_marked(pinned):
    """The lab believes every decision with pins; their slots are marked, with the clicks as they
    were, and taken out they leave the others in their order."""
    assert not pinned.found.dropped
    found = pinned.found.decisions
    assert found.pinned.any()
    marked = [[slot.pinned is True for slot in event.slate] for event in pinned.decisions]
    assert found.pinned.tolist() == marked
    assert found.judged.all()

    others = found.without_pinned_slots()
    assert not (others.pinned & (np.arange(SLOTS) < others.slots[:, None])).any()
    for row, event in enumerate(pinned.decisions):
        items = [int(slot.item.removeprefix("item-")) for slot in event.slate if not slot.pinned]
        assert others.items[row, : others.slots[row]].tolist() == items
        assert set(others.items[row, others.slots[row] :]) <= {-1}
        assert others.guarded[row] == sum(
            not slot.pinned for slot in event.slate[: found.guarded[row]]
        )

    merged = merge_examples([pinned.examples, pinned.examples]).decisions
    np.testing.assert_array_equal(merged.pinned, np.concatenate([found.pinned, found.pinned]))


def test_other_propensities_than_a_scheme_gives_are_not_believed(pinned):
    """The slots beside the pins are held to what the scheme gives."""
    kept, left_out = ope.plausible(forged(pinned), active_policy(METADATA, pinned.config))
    assert len(kept) == len(pinned.found.decisions) - 1
    assert left_out == {"propensities that rank, pool and ε do not explain": 1}


def test_the_policy_of_devices_that_pin_has_the_weight_1_against_itself(pinned):
    """Pinned slots are not judged; in all others the active policy against itself weighs 1."""
    if pinned.config.scheme != "sequential":
        pytest.skip("only `sequential` is judged off policy")
    _, slates, orders, sums = pinned.judged_against_itself()
    free = sum(not (slot.pinned or slot.newcomer) for one in pinned.decisions for slot in one.slate)
    assert int(slates.log.judged.sum()) == free
    # The float network ranks some neighbours otherwise than the int8 rows do.
    has_slot = np.arange(SLOTS) < slates.lengths[:, None]
    assert (orders.ranks != slates.ranks)[has_slot].mean() < 0.1
    np.testing.assert_allclose(orders.epsilon, slates.epsilon)
    assert sums.weight.sum() == pytest.approx(sums.examined.sum(), rel=0.1)


def test_clicks_on_pins_teach_the_regression_and_no_policy_gradient(pinned):
    """A pinned slot is a label of the click regression; the policy gradient, which weighs what the
    policy chose, does not read its reward."""
    found = pinned.found.decisions
    regression = ClickRegression(pinned.context, found)
    assert (regression._weight[found.pinned] > 0.0).all()

    flipped = replace(found, reward=np.where(found.pinned, -found.reward, found.reward))
    losses = []
    for decisions in (found, flipped):
        config = replace(pinned.config, policy_epochs=1, supervision=0.0)
        context = replace(pinned.context, network=float_network(pinned.bundle), config=config)
        losses.append(policy_gradient(context, decisions).loss)
    assert losses[0] == losses[1]
    assert math.isfinite(losses[0][0])


@pytest.fixture(scope="module", params=PLANS, ids=lambda plan: f"{plan.scheme}-{plan.guarded}")
def diverse(request, tmp_path_factory):
    """Devices whose app asks for diversity, and pins at times, under each scheme."""
    folder = tmp_path_factory.mktemp("diverse")
    return Fleet(folder, request.param, lambda rng: {"diversity": 0.5, **pins(rng)}, devices=2)


def test_diverse_decisions_are_believed_and_not_judged(diverse):
    """The lab believes every decision with diversity, counts it by a reason where it judges, and
    learns from its clicks."""
    assert not diverse.found.dropped
    found = diverse.found.decisions
    assert found.diverse.all()
    policy = active_policy(METADATA, diverse.config)
    kept, _, left_out = ope.usable(found, policy)
    assert len(kept) == 0
    reasons = ("drawn with diversity", "drawn by another scheme")
    assert sum(left_out.values()) == len(found)
    assert all(reason.startswith(reasons) for reason in left_out)

    regression = ClickRegression(diverse.context, found)
    assert (regression._weight > 0.0).all()


def test_propensities_that_diversity_does_not_give_are_not_believed(diverse):
    """Diversity hides which item was the best one left, and no more than that."""
    kept, left_out = ope.plausible(forged(diverse), active_policy(METADATA, diverse.config))
    assert len(kept) == len(diverse.found.decisions) - 1
    assert left_out == {"propensities that rank, pool and ε do not explain": 1}


def boosts(rng):
    """Return boosts of random price ranges, up or down, and pins at times."""
    entries = [
        {"where": {"price": {"ge": int(rng.integers(10, 90))}}, "by": float(rng.normal(0.0, 2.0))}
        for _ in range(rng.integers(1, 4))
    ]
    return {"boost": entries, **pins(rng)}


@pytest.fixture(scope="module", params=PLANS[:2], ids=lambda plan: f"{plan.scheme}-{plan.guarded}")
def promoted(request, tmp_path_factory):
    """Devices whose app boosts, and pins at times."""
    return Fleet(tmp_path_factory.mktemp("boosted"), request.param, boosts)


def test_the_policy_of_devices_that_boost_has_the_weight_1_against_itself(promoted):
    """The candidate gets the boosts that the log names, so that the active policy against itself
    ranks and weighs the same; without them it does not."""
    assert not promoted.found.dropped
    assert promoted.found.decisions.boosted.all()
    _, slates, orders, sums = promoted.judged_against_itself()
    has_slot = np.arange(SLOTS) < slates.lengths[:, None]
    assert (orders.ranks != slates.ranks)[has_slot].mean() < 0.1
    assert sums.weight.sum() == pytest.approx(sums.examined.sum(), rel=0.1)

    untold = replace(promoted.found.decisions, boosted=np.zeros(0, bool))
    decisions, slates, _ = ope.usable(untold, active_policy(METADATA, promoted.config))
    orders = orders_of(promoted.context, promoted.context, decisions)
    assert (orders.ranks != slates.ranks)[has_slot].mean() > 0.3


def test_boosts_are_read_with_the_pools(promoted):
    """What the log names for each item of a pool stands beside the item, and survives a merge."""
    found = promoted.found.decisions
    merged = merge_examples([promoted.examples, promoted.examples]).decisions
    rows = np.arange(len(found))
    for decisions in (found, merged.take(rows + len(found))):
        pools, added = decisions.logged_pools(rows), decisions.logged_boosts(rows)
        for row, event in enumerate(promoted.decisions):
            assert pools[row, : event.pool].tolist() == [
                IDS.index(each) for each in event.pool_items
            ]
            np.testing.assert_allclose(added[row, : event.pool], event.boosts, rtol=1e-6)
            assert not added[row, event.pool :].any()


def test_boosts_without_a_pool_are_left_out(promoted):
    """A boosted decision that does not name its pool cannot be judged, and is counted."""
    found = promoted.found.decisions
    nameless = replace(found, pool_items=np.full(len(found), b"", object))
    kept, _, left_out = ope.usable(nameless, active_policy(METADATA, promoted.config))
    assert len(kept) == 0
    assert left_out == {"drawn under boosts without naming its pool": len(found)}


def test_the_policy_gradient_learns_under_boosts(promoted):
    """The policy that acted had the boosts: the gradient of a policy against itself has KL 0."""
    config = replace(promoted.config, policy_epochs=1, supervision=0.0)
    context = replace(promoted.context, network=float_network(promoted.bundle), config=config)
    curves = policy_gradient(context, promoted.found.decisions)
    assert math.isfinite(curves.loss[0])
    assert curves.kl[0] < 0.1


def test_an_arm_of_an_experiment_teaches_and_does_not_judge(tmp_path):
    """Some devices are in an arm without personalization: the lab believes them all, learns from
    all clicks, and judges by the others alone, since an arm is another policy."""
    experiment = Experiment("shelf", (Arm("popular", 0.5, personalized=False),))
    fleet = Fleet(tmp_path, PLANS[0], lambda rng: {}, devices=8, experiment=experiment)
    in_arm = np.array([bool(event.arm) for event in fleet.decisions])
    assert 0 < in_arm.sum() < len(in_arm)

    found = fleet.found.decisions
    assert not fleet.found.dropped
    assert found.in_arm.tolist() == in_arm.tolist()
    merged = merge_examples([fleet.examples, fleet.examples]).decisions
    assert merged.in_arm.tolist() == 2 * in_arm.tolist()
    assert (ClickRegression(fleet.context, found)._weight > 0.0).all()

    kept, _, left_out = ope.usable(found, active_policy(METADATA, fleet.config))
    assert left_out == {"decided by an arm of an experiment": int(in_arm.sum())}
    assert not kept.in_arm.any()
