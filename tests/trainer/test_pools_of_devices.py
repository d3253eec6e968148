"""Real devices rank by int8 rows and an app excludes what it has shown: the lab judges their log by
the float network."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest

from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling_trainer.evaluation import ope
from sanderling_trainer.event_log.examples import examples_of
from sanderling_trainer.event_log.reader import EventLog
from sanderling_trainer.jobs.candidate import judge_candidate
from sanderling_trainer.jobs.trust import believed
from sanderling_trainer.policy.training.context import TrainingContext
from tests.support.bundles import KINDS, TEXT, write_bundle
from tests.support.engines import stored
from tests.support.fakes import FakeClock, FakeEntropy
from tests.support.float_networks import (
    CONFIG,
    DIM,
    EPSILON,
    ITEMS,
    METADATA,
    POOL,
    SLOTS,
    float_network,
)

pytestmark = pytest.mark.lab

DEVICES, SESSIONS, VISITS = 40, 5, 5


@pytest.fixture(scope="module")
def devices(tmp_path_factory):
    """The bundle, and what 40 devices logged whose app excludes what each session has shown."""
    return logged(tmp_path_factory.mktemp("devices"), lambda shown, rng: {"exclude": shown})


@pytest.fixture(scope="module")
def filtering_devices(tmp_path_factory):
    """The same of an app that filters by genre and stock, ranks its own lists, and pages."""
    return logged(tmp_path_factory.mktemp("filtering"), filtered)


def filtered(shown, rng):
    """Return the rules of one call, of which some leave less than a pool."""
    listed = [f"item-{row}" for row in rng.choice(ITEMS, 30, replace=False)]
    return [
        {"where": {"genre": int(rng.integers(3))}, "exclude": shown},
        {"where": {"rare": True}},
        {"among": listed},
        {"among": listed[:12], "where": {"not": {"genre": 0}}},
        {},
    ][int(rng.integers(5))]


def attributes_of(row):
    return {"genre": row % 3, "rare": row % 12 == 0}


def logged(folder, rules_of):
    """Return a bundle, and what 40 devices logged of it under rules."""
    plan = Exploration(epsilon=EPSILON, pool=POOL, newcomers=0.0)
    bundle = folder / "bundle"
    write_bundle(bundle, items=ITEMS, dim=DIM, exploration=plan, attributes=attributes_of)
    rng = np.random.default_rng(0)
    attraction = rng.uniform(0.02, 0.4, ITEMS)
    events = {}
    for device in range(DEVICES):
        state = folder / f"{device}"
        # Drawn anew each time, two standard errors would be passed once in twenty runs.
        entropy = FakeEntropy(1000 + device)
        options = {"background": False, "entropy": entropy, "clock": FakeClock()}
        with Engine.open(bundle, state, **options) as engine:
            for _ in range(SESSIONS):
                visit(engine, attraction, rules_of, rng)
            of_device = stored(engine)
        events[of_device[0].install, of_device[0].user] = of_device
    return bundle, EventLog(events=events)


def visit(engine, attraction, rules_of, rng):
    """Show slates under the rules of each call, and reward what is clicked."""
    shown = []
    for _ in range(VISITS):
        slate = engine.recommend("anna", SLOTS, **rules_of(shown, rng))
        rates = [attraction[int(item.id.removeprefix("item-"))] for item in slate]
        clicks = rng.random(len(slate)) < rates
        engine.reward_all(
            slate, {item: 2.0 * c - 1.0 for item, c in zip(slate, clicks, strict=True)}
        )
        shown += [item.id for item in slate]


def report_on_itself(bundle, log):
    """Judge the devices' policy against itself."""
    examples = examples_of(log, [f"item-{row}" for row in range(ITEMS)], KINDS, TEXT)
    found = believed(examples, METADATA, CONFIG)
    assert not found.dropped
    context = TrainingContext(float_network(bundle), found.histories, CONFIG, repeats=True)
    return judge_candidate(context, context, found.decisions, METADATA)


def test_the_policy_of_devices_is_not_held_against_itself(devices):
    """The float network ranks some neighbours otherwise, and still the log can be judged: the
    estimated difference is 0 within two of its standard errors."""
    bundle, log = devices
    # All but the first of each session, unless what was shown ranks lower by then.
    assert n_pools(log) > 0.95 * DEVICES * SESSIONS * (VISITS - 1)
    assert_ships(report_on_itself(bundle, log))


def test_nor_is_that_of_devices_under_rules(filtering_devices):
    """Rules, lists and pages shape the pool that the event names, of which the lab knows all that
    could be shown where it has every eligible item: the policy equals itself there too."""
    bundle, log = filtering_devices
    assert n_pools(log) > 0.7 * DEVICES * SESSIONS * VISITS
    assert_ships(report_on_itself(bundle, log))


def n_pools(log):
    """Return how many decisions name their pool."""
    events = itertools.chain.from_iterable(log.events.values())
    return sum(bool(event.pool_items) for event in events if hasattr(event, "pool_items"))


def assert_ships(report):
    """Check that all decisions were used, and that the policy equals itself."""
    assert report["decisions"] == DEVICES * SESSIONS * VISITS
    assert report["gate"]["is_sound"]
    assert report["gate"]["verdict"] != ope.HOLD
    difference = report["difference"]
    assert abs(difference["value"]) <= 2.0 * difference["standard_error"] + 1e-9
    assert difference["unsupported"] < 0.01


def test_without_their_pools_it_is_held(devices):
    """Engines that log no pools leave the lab with others than they had."""
    bundle, log = devices
    events = {
        key: [
            msgspec.structs.replace(event, pool_items=msgspec.UNSET)
            if hasattr(event, "pool_items")
            else event
            for event in group
        ]
        for key, group in log.events.items()
    }
    report = report_on_itself(bundle, EventLog(events=events))
    assert report["gate"]["verdict"] == ope.HOLD
    assert "mean weight" in report["gate"]["reasons"][0]
