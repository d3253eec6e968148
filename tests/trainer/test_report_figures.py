"""The report's figures of an event store, beside a slow twin that counts events one by one."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sanderling.events.schema import ClockReading, Loss
from sanderling_trainer.report.collect import Sources, collect
from sanderling_trainer.report.figures import distinct_in, gini, top_share
from tests.support.fakes import EventFactory
from tests.support.naive_report import naive_figures
from tests.support.report_logs import (
    BOOT,
    DAY_MS,
    FIRST_DAY,
    SLOTS,
    fleet_events,
    install_of,
    upload,
)

pytestmark = pytest.mark.lab


def figures_of(tmp_path, events):
    """Return the figures of a store with these events."""
    upload(tmp_path / "events", events)
    return collect(Sources(str(tmp_path / "events")))["events"]


def loss_of(number, seq, **fields):
    """Return the declared loss of an install."""
    clock = ClockReading(FIRST_DAY * DAY_MS, 9_000, BOOT)
    return Loss(f"{number:032x}", install_of(number), seq, clock, "full", **fields)


def test_the_figures_equal_a_slow_twin(tmp_path):
    """Clicks, slots, new items, exploration, coverage and losses are those of plain loops."""
    events = fleet_events(releases=(1, 2, 3))
    last = max(event.seq for event in events if event.install == install_of(1))
    events.append(loss_of(1, last + 4, decisions=1, outcomes=2))
    found, slow = figures_of(tmp_path, events), naive_figures(events)

    for row in found["releases"]:
        release = row["release"]
        assert row["slates"] == slow[release, "slates"]
        assert row["seen"] == slow[release, "seen"]
        assert row["clicks"] == slow[release, "clicks"]
        assert row["rate"]["value"] == pytest.approx(
            slow[release, "clicks"] / slow[release, "seen"]
        )
    for row in found["newcomers"]["releases"]:
        release = row["release"]
        assert row["slots"] == pytest.approx(slow[release, "new slots"] / slow[release, "slots"])
        assert row["seen"] == slow[("new", release), "seen"]
        assert row["clicks"] == pytest.approx(
            slow[("new", release), "clicks"] / slow[release, "clicks"]
        )
    assert found["newcomers"]["releases"][1]["slots"] > 0.1
    for kind in ("greedy", "explored", "quota"):
        assert found["exploration"]["seen"][kind] == slow[kind, "seen"]
        rate = slow[kind, "clicks"] / slow[kind, "seen"]
        assert found["exploration"][kind]["value"] == pytest.approx(rate)
    shown = {row["release"]: row["items"] for row in found["coverage"]["releases"]}
    assert shown == slow["items"]
    assert found["losses"]["declared"] == slow["declared"] == 3
    assert found["losses"]["missing"] == 0


def test_the_cost_of_exploration_is_what_greedy_slots_would_have_got(tmp_path):
    """Explored slots at the greedy rate of their release and place, less their clicks."""
    events = fleet_events()
    found, slow = figures_of(tmp_path, events)["exploration"], naive_figures(events)
    seen = slow[1, "seen"] + slow[2, "seen"]
    cost = 0.0
    for place in product((1, 2), range(SLOTS)):
        greedy = slow["greedy", place, "clicks"] / slow["greedy", place, "seen"]
        would = greedy * slow["exploring", place, "seen"]
        cost += (would - slow["exploring", place, "clicks"]) / seen
    assert found["cost"]["value"] == pytest.approx(cost)
    assert found["cost"]["low"] < cost < found["cost"]["high"]
    total = (slow[1, "clicks"] + slow[2, "clicks"]) / seen
    assert found["cost_of_clicks"] == pytest.approx(cost / (total + cost))


def test_releases_of_the_same_days_are_compared_on_them(tmp_path):
    """Where another release runs beside the latest one, the days before do not count."""
    first, second = fleet_events(20, (1, 3)), fleet_events(40, (1, 1), seed=1)[:]
    beside = [event for event in second if int(event.install, 16) > 20]
    compared = figures_of(tmp_path, first + beside)["comparison"]
    assert compared["is_same_days"]
    assert compared["release"] == 3
    last_day = [event for event in beside if event.clock.wall // DAY_MS == FIRST_DAY + 1]
    slow = naive_figures(last_day)
    assert compared["other_rate"] == pytest.approx(slow[1, "clicks"] / slow[1, "seen"])
    alone = figures_of(tmp_path / "alone", first)["comparison"]
    assert not alone["is_same_days"]


def test_arms_of_experiments_do_not_mix_with_releases(tmp_path):
    """Slates that an arm decided count in no rate of a release, and are counted apart."""
    plain = fleet_events(12)
    in_arm = [
        event
        for event in fleet_events(24, seed=3, experiment="shelf", arm="bold")
        if int(event.install, 16) > 12
    ]
    mixed, alone = figures_of(tmp_path, plain + in_arm), figures_of(tmp_path / "alone", plain)
    assert mixed["in_arms"] == 72
    assert mixed["experiments"] == ["shelf"]
    for row, same in zip(mixed["releases"], alone["releases"], strict=True):
        assert (row["seen"], row["clicks"]) == (same["seen"], same["clicks"])
    only = figures_of(tmp_path / "only", in_arm)
    assert only["releases"][0]["seen"] > 0


def test_a_release_that_one_install_claims_does_not_count(tmp_path):
    """A device that names a release of its own is neither the latest release nor in any rate."""
    events = fleet_events(24)
    liar = [
        event
        for event in fleet_events(25, (2**53, 2**53 - 1), seed=9)
        if event.install == install_of(25)
    ]
    found, alone = figures_of(tmp_path, events + liar), figures_of(tmp_path / "alone", events)
    assert found["lonely_releases"] == [2**53 - 1, 2**53]
    assert found["comparison"] == alone["comparison"]
    assert found["exploration"]["seen"] == alone["exploration"]["seen"]


def test_incomplete_and_cloned_installs_count_for_nothing(tmp_path):
    """An install with a gap in its numbers is in the losses, and in no rate."""
    events = fleet_events(12)
    gap = [event for event in events if event.seq != 2 or event.install != install_of(1)]
    found = figures_of(tmp_path, gap)
    rest = [event for event in events if event.install != install_of(1)]
    assert found["losses"]["missing"] == found["losses"]["incomplete"] == 1
    assert found["releases"][0]["seen"] == naive_figures(rest)[1, "seen"]
    assert found["installs"] == 11


def test_randomized_response_is_unbiased(tmp_path):
    """Rewards that were flipped with a known probability give the true click rate."""
    rng = np.random.default_rng(5)
    flip, true_rate, events = 0.2, 0.3, []
    for number in range(1, 31):
        make = EventFactory(install_of(number), number * 10**6)
        clock = ClockReading(FIRST_DAY * DAY_MS, 5_000, BOOT)
        for turn in range(100):
            decision = make.decision(seq=2 * turn + 1, clock=clock)
            value = (1.0 if rng.random() < true_rate else -1.0) * (-1) ** (rng.random() < flip)
            outcome = make.outcome(
                decision, 0, value, seq=2 * turn + 2, flip_probability=flip, clock=clock
            )
            events += [decision, outcome]
    found = figures_of(tmp_path, events)
    rate = found["releases"][0]["rate"]
    assert found["is_noisy"]
    assert rate["low"] < true_rate < rate["high"] < rate["low"] + 0.1


@pytest.mark.parametrize("count", [0, 1])
def test_stores_with_almost_nothing_have_figures(tmp_path, count):
    """An empty store, and one with a single event, give figures without rates."""
    found = figures_of(tmp_path, fleet_events(1)[:count])
    assert found["releases"] == []
    assert found["comparison"] is None
    assert found["slates"] == found["losses"]["events"] == count


def test_coverage_measures():
    """Rarefaction, the top tenth and Gini are those of enumeration and of their definitions."""
    counts = np.array([5, 3, 1, 1])
    rng = np.random.default_rng(0)
    slots = np.repeat(np.arange(4), counts)
    drawn = [len(np.unique(rng.permutation(slots)[:4])) for _ in range(20_000)]
    assert distinct_in(counts, 4) == pytest.approx(np.mean(drawn), abs=0.02)
    assert distinct_in(counts, 10) == pytest.approx(4.0)
    assert top_share(counts, 20) == pytest.approx(0.8)
    full = np.array([5, 3, 1, 1, 0, 0])
    pairs = np.abs(full[:, None] - full[None, :]).sum()
    assert gini(counts, 6) == pytest.approx(pairs / (2 * 6 * full.sum()))
    assert gini(np.array([2, 2, 2]), 3) == pytest.approx(0.0)
