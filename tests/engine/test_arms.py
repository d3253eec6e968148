"""Experiments on the device: who is in which arm, and what the arms get."""

from __future__ import annotations

import hashlib
from collections import Counter

import msgspec
import numpy as np
import pytest

from sanderling import Engine
from sanderling.bundle import manifest as manifests
from sanderling.bundle.manifest import Arm, Experiment, Exploration
from sanderling.events.semantics import semantic_fault
from sanderling.exploration.arms import assigned_arm
from tests.support.bundles import write_bundle
from tests.support.engines import profiles_of, scorer_of, stored
from tests.support.fakes import FakeEntropy

HALVES = Experiment("shelf", (Arm("popular", 0.5, personalized=False), Arm("usual", 0.5)))


def with_experiment(folder, experiment):
    """Write a bundle with an experiment, as `quantize` does at last."""
    write_bundle(folder, exploration=Exploration(epsilon=0.2, pool=10))
    manifest = msgspec.structs.replace(manifests.read(folder), experiment=experiment)
    (folder / manifests.MANIFEST).write_bytes(manifests.dump(manifest))
    return folder


def test_shares_are_those_of_a_hash_that_anybody_can_repeat():
    """Of 20,000 installs each arm gets its share, and the rule of the page gives the same arm."""
    experiment = Experiment("e", (Arm("a", 0.05), Arm("b", 0.2), Arm("c", 0.25)))
    counts = Counter()
    for number in range(20_000):
        install = f"{number:032x}"
        arm = assigned_arm(experiment, install)
        counts[arm.name if arm else ""] += 1
        digest = hashlib.sha256(f"e/{install}".encode()).digest()
        u = int.from_bytes(digest[:8], "big") / 2**64
        wanted = "a" if u < 0.05 else "b" if u < 0.25 else "c" if u < 0.5 else None
        assert (arm.name if arm else None) == wanted
    for name, share in (("a", 0.05), ("b", 0.2), ("c", 0.25), ("", 0.5)):
        assert abs(counts[name] / 20_000 - share) < 4 * np.sqrt(share * (1 - share) / 20_000)


def test_another_name_assigns_anew_and_all_shares_are_used_up():
    """Two experiments are independent, and shares of 1 leave nobody out."""
    other = Experiment("shelf-2", HALVES.arms)
    both = Counter(
        (assigned_arm(HALVES, f"{n:032x}").name, assigned_arm(other, f"{n:032x}").name)
        for n in range(4000)
    )
    assert len(both) == 4
    assert all(abs(count - 1000) < 120 for count in both.values())


@pytest.mark.parametrize("arm", [0, 1])
def test_a_slate_of_an_arm_says_so_and_so_does_its_event(tmp_path, arm):
    """Without personalization every user gets the items of the highest biases, and the event names
    the pool; the other arm gets what there is without an experiment."""
    only = Experiment("shelf", (msgspec.structs.replace(HALVES.arms[arm], share=1.0),))
    with_experiment(tmp_path / "bundle", only)
    slates = []
    for entropy in (1, 2):
        folder = tmp_path / f"state-{entropy}"
        with Engine.open(tmp_path / "bundle", folder, entropy=FakeEntropy(entropy)) as engine:
            for row in range(4):
                engine.observe(f"user-{entropy}", f"item-{4 * entropy + row}")
            slate = engine.recommend(f"user-{entropy}", 5, greedy=True)
            assert engine.explain(slate.decision).is_identical
            events = stored(engine)
            biases = np.argsort(-scorer_of(engine).index.bias, kind="stable")[:5].tolist()
        event = next(event for event in events if event.id == slate.decision)
        slates.append([item.id for item in slate])
        assert (slate.arm, event.experiment, event.arm) == (only.arms[0].name, "shelf", slate.arm)
        assert slate.to_dict()["arm"] == slate.arm
        assert semantic_fault(event) is None
        assert bool(event.pool_items) == (not only.arms[0].personalized)
        if not only.arms[0].personalized:
            assert slates[-1] == [f"item-{row}" for row in biases]
    assert (slates[0] == slates[1]) == (arm == 0)


def test_an_arm_explores_as_it_says(tmp_path):
    """Its plan takes the place of the bundle's, the daily budget included; propensities follow."""
    plan = Exploration(epsilon=1.0, pool=8, daily=4, newcomers=0.0)
    with_experiment(tmp_path / "bundle", Experiment("e", (Arm("bold", 1.0, plan),)))
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        first, second = (engine.recommend("anna", 4) for _ in range(2))
    assert all(item.explored and item.rank < 8 for item in first)
    assert first[0].propensity == pytest.approx(1 / 8)
    assert [item.rank for item in second] == [0, 1, 2, 3]
    assert all(item.propensity == 1.0 for item in second)


def test_installs_in_no_arm_get_what_the_bundle_says(tmp_path):
    """Their events name the experiment alone, so that they are the control."""
    with_experiment(tmp_path / "bundle", Experiment("e", (Arm("a", 1e-9),)))
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        slate = engine.recommend("anna", 4)
        event = next(event for event in stored(engine) if event.id == slate.decision)
        assert profiles_of(engine).snapshot("anna", 0, scorer_of(engine)).arm is None
    assert (slate.arm, event.experiment, event.arm) == (None, "e", msgspec.UNSET)
    assert event.epsilon == pytest.approx(0.2 * (1 - 0.3) / (1 - 0.2 * 0.3), rel=0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "e", "arms": []}, "arms"),
        ({"name": "E!", "arms": [{"name": "a", "share": 0.5}]}, "name"),
        ({"name": "e", "arms": [{"name": "a", "share": 0.0}]}, "share"),
        ({"name": "e", "arms": [{"name": "a", "share": 0.7}] * 2}, "distinct"),
        ({"name": "e", "arms": [{"name": "rest", "share": 0.7}]}, "rest"),
        (
            {"name": "e", "arms": [{"name": "a", "share": 0.7}, {"name": "b", "share": 0.4}]},
            "shares of 1",
        ),
        ({"name": "e", "arms": [{"name": "a", "share": 0.7, "epsilon": 0.1}]}, "epsilon"),
    ],
)
def test_what_is_no_experiment_is_refused(fields, message):
    """One message names the first wrong field."""
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(fields, Experiment)
