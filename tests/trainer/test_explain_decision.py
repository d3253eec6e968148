"""Logged decisions explained in the lab, against what the devices that made them say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from sanderling import Engine
from sanderling.bundle import manifest as manifests
from sanderling.bundle.manifest import Arm, Experiment, Exploration
from sanderling.errors import SanderlingError
from sanderling.events import codec
from sanderling.events.schema import Decision, Observation
from sanderling_trainer.cli.explain import explain
from sanderling_trainer.event_log import segment_format
from sanderling_trainer.event_log.object_store import open_store
from sanderling_trainer.jobs.explain_decision import explain_decision
from tests.support.bundles import write_bundle
from tests.support.engines import stored
from tests.support.fakes import FakeClock, FakeEntropy

pytestmark = pytest.mark.lab

COMPARED = (
    "score", "boost", "history_effect", "events", "events_known", "events_total", "older_effect",
    "is_exact", "popularity", "context_effect", "rank", "eligible", "pool", "scheme", "epsilon",
    "explored", "newcomer", "pinned", "propensity", "marginal", "greedy", "passed_over",
)  # fmt: skip


def write_log(root: Path, events) -> str:
    """Store events as a collector does."""
    clock = FakeClock()
    now = clock.wall_ms()
    lines = [segment_format.encode_line(codec.encode(event), now, now) for event in events]
    store = open_store(str(root))
    store.put(segment_format.new_file_name("segments", clock), segment_format.pack(lines))
    return str(root)


def device(bundle: Path, state: Path, **options) -> Engine:
    return Engine.open(
        bundle, state, clock=FakeClock(), entropy=FakeEntropy(), share_context=True, **options
    )


@pytest.mark.parametrize("scheme", ["sequential", "mixture", "softmax"])
def test_the_lab_says_what_the_device_says(tmp_path, scheme):
    """Every decision of a log is replayed bit for bit, and its reasons are those of the device,
    with contexts, caps, pins, exclusions, newcomers, greedy slates and unknown items. Of newcomers
    that a rule kept out the log knows the number alone."""
    plan = Exploration(scheme=scheme, epsilon=0.5, pool=12, guarded=1, newcomers=0.4)
    bundle = tmp_path / "bundle"
    write_bundle(bundle, exploration=plan, newcomers=range(40, 50))
    with device(bundle, tmp_path / "state") as engine:
        slates = []
        for number in range(6):
            engine.observe("anna", f"item-{number}", ("view", "click", "unheard of")[number % 3])
            engine.observe("anna", "gone", "view")
            slates += [
                engine.recommend("anna", 4, context="rainy evening" if number % 2 else None),
                engine.recommend("anna", 4, at_most={"price": 1}),
                engine.recommend("anna", 4, exclude=[f"item-{row}" for row in range(10)]),
                engine.recommend("anna", 4, pin={1: "item-7"}),
                engine.recommend("anna", 4, diversity=0.5),
                engine.recommend("anna", 4, boost=[{"where": {"price": {"lt": 40}}, "by": 0.7}]),
                engine.recommend("anna", 4, where={"price": {"lt": 40}}),
                engine.recommend("anna", 4, greedy=True),
            ]
            engine.reward(slates[-1], slates[-1][0], 1.0)
        store = write_log(tmp_path / "events", stored(engine))
        for slate in slates:
            done = explain_decision(store, bundle, slate.decision)
            if "where" in slate[0].why().rules and not done.is_identical:
                assert "newcomers" in done.notes[0]
            else:
                assert (done.is_identical, done.notes) == (True, [])
            for shown, slot in zip(slate, done.slots, strict=True):
                assert slot.shown == shown
                for name in COMPARED:
                    if name == "passed_over" and slot.reasons.boost:
                        continue  # what was added to items outside the pool is not logged
                    assert getattr(slot.reasons, name) == getattr(shown.why(), name), name
        latest = max(slates, key=lambda slate: slate.decision)
        assert explain_decision(store, bundle).decision.id == latest.decision


def test_more_events_than_a_device_keeps_are_all_named(tmp_path):
    """The log has every event of a user, and the reasons in the lab name all of them."""
    bundle = tmp_path / "bundle"
    write_bundle(bundle)
    with device(bundle, tmp_path / "state") as engine:
        for number in range(300):
            engine.observe("anna", f"item-{number % 50}", "click")
        slate = engine.recommend("anna", 1)
        assert slate[0].why().events_known == 256
        store = write_log(tmp_path / "events", stored(engine))
    done = explain_decision(store, bundle, slate.decision)
    why = done.slots[0].reasons
    assert done.is_identical
    assert (why.events_known, why.events_total, why.is_exact) == (300, 300, True)


@pytest.mark.parametrize("personalized", [True, False])
def test_an_arm_is_replayed_as_it_explored(tmp_path, personalized):
    """Decisions of an arm with its own exploration are replayed bit for bit, with the reasons of
    the device."""
    arm = Arm("one", 1.0, Exploration(epsilon=0.9, pool=6), personalized=personalized)
    bundle = tmp_path / "bundle"
    write_bundle(bundle)
    manifest = msgspec.structs.replace(manifests.read(bundle), experiment=Experiment("e", (arm,)))
    (bundle / manifests.MANIFEST).write_bytes(manifests.dump(manifest))
    with device(bundle, tmp_path / "state") as engine:
        engine.observe("anna", "item-3", "click")
        slates = [engine.recommend("anna", 4) for _ in range(5)]
        store = write_log(tmp_path / "events", stored(engine))
        for slate in slates:
            done = explain_decision(store, bundle, slate.decision)
            assert done.is_identical
            for shown, slot in zip(slate, done.slots, strict=True):
                assert slot.reasons == replace(shown.why(), sentence=slot.reasons.sentence)


@pytest.fixture
def logged(tmp_path):
    """A bundle, the events of two users with a decision each, and the decisions' ids."""
    bundle = tmp_path / "bundle"
    write_bundle(bundle)
    with device(bundle, tmp_path / "state", adapt=True) as engine:
        engine.observe("anna", "item-3", "click")
        first = engine.recommend("anna", 4, greedy=True)
        engine.reward_all(first, {first[0]: -1.0, first[2]: 1.0}, observe=False)
        second = engine.recommend("anna", 4)
        engine.upsert_items([{"id": "new", "text": "jazz album"}])
        third = engine.recommend("bob", 3, pin={0: "new"})
        return bundle, stored(engine), (first.decision, second.decision, third.decision)


def test_what_only_the_device_knew_is_said(logged, tmp_path):
    """A slate that was adapted on the device, or shows its own items, is explained without, and
    the notes say so."""
    bundle, events, (_, adapted, own) = logged
    store = write_log(tmp_path / "events", events)
    done = explain_decision(store, bundle, adapted)
    assert "learned from rewards" in done.notes[0]
    assert all(slot.reasons for slot in done.slots)
    done = explain_decision(store, bundle, own)
    assert "lacks items of the slate" in done.notes[1]
    assert [bool(slot.reasons) for slot in done.slots] == [False, True, True]
    json.dumps(done.to_dict())


def test_a_state_that_cannot_be_rebuilt_explains_nothing(logged, tmp_path):
    """Where an event is missing the slate is shown as it was logged, without invented reasons."""
    bundle, events, (first, *_) = logged
    store = write_log(
        tmp_path / "events", [event for event in events if not isinstance(event, Observation)]
    )
    done = explain_decision(store, bundle, first)
    assert "cannot be rebuilt" in done.notes[0]
    assert [slot.reasons for slot in done.slots] == [None] * 4
    assert not done.is_identical


def test_wrong_questions_have_one_line(logged, tmp_path):
    """Unknown decisions, other releases, missing folders and impossible decisions are named."""
    bundle, events, (first, *_) = logged
    store = write_log(tmp_path / "events", events)
    with pytest.raises(ValueError, match="found none of this id"):
        explain_decision(store, bundle, "0" * 32)
    with pytest.raises(FileNotFoundError, match="check --events"):
        explain_decision(str(tmp_path / "absent"), bundle, first)
    write_bundle(tmp_path / "two", release=2)
    with pytest.raises(ValueError, match="expected the bundle of release 1"):
        explain_decision(store, tmp_path / "two", first)
    with pytest.raises(ValueError, match="expected decisions of release 2, found none"):
        explain_decision(store, tmp_path / "two")
    with pytest.raises(SanderlingError):
        explain_decision(store, tmp_path / "no bundle", first)
    for changed in ({"context": "AAAAAA=="}, {"context": "AAAA"}, {"pool": 3}):
        forged = [
            msgspec.structs.replace(event, **changed) if isinstance(event, Decision) else event
            for event in events
        ]
        other = write_log(tmp_path / str(changed), forged)
        with pytest.raises(ValueError, match="expected one that an engine made"):
            explain_decision(other, bundle, first)


def test_the_command_prints_the_slate_with_reasons(logged, tmp_path):
    """The text has a line for each slot with its sentence below, `--json` all the data."""
    bundle, events, (first, *_) = logged
    store = write_log(tmp_path / "events", events)
    app = typer.Typer()
    app.command()(explain)
    arguments = ["--events", store, "--bundle", str(bundle), "--decision", first]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    lines = run.output.splitlines()
    assert lines[0].startswith(f"decision {first} of release 1, 2025-06-15")
    assert "the replay equals the log bit for bit" in lines
    done = explain_decision(store, bundle, first)
    place = next(i for i, line in enumerate(lines) if line.startswith("slot"))
    for slot in done.slots:
        row, sentence = lines[place + 1 + 2 * slot.shown.slot :][:2]
        assert row.startswith(f"{slot.shown.slot + 1:>4} {slot.shown.rank + 1:>5}")
        assert slot.shown.title in row
        assert sentence.strip() == str(slot.reasons)
    run = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(run.output) == json.loads(json.dumps(done.to_dict()))
