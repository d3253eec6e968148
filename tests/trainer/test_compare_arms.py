"""From the devices' events to what is said of the arms of an experiment."""

from __future__ import annotations

import numpy as np
import pytest

from sanderling.bundle.manifest import Arm, Experiment, Exploration
from sanderling.events import codec
from sanderling.events.schema import Slot
from sanderling.exploration.arms import assigned_arm
from sanderling_quantize.manifest_files import read_experiment
from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.event_log import segment_format
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.jobs.compare_arms import compare_arms
from tests.support.fakes import EventFactory, FakeClock

pytestmark = pytest.mark.lab

FILE = """
name = "shelf"
[[arms]]
name = "popular"
share = 0.2
personalized = false
[[arms]]
name = "bold"
share = 0.3
exploration = { epsilon = 0.3 }
"""
EXPERIMENT = Experiment(
    "shelf",
    (
        Arm("popular", 0.2, personalized=False),
        Arm("bold", 0.3, Exploration(epsilon=0.3, pool=20)),
    ),
)
INSTALLS = [f"{number:032x}" for number in range(1, 801)]
SLATES, SLOTS = 10, 3


def events_of(install, rate, clock, *, arm="own", experiment="shelf", first=1):
    """Return decisions of an install with judged slots, of which a share is clicked."""
    make = EventFactory(install, int(install, 16) * 10**9 + first)
    rng = np.random.default_rng([int(install, 16), first])
    own = assigned_arm(EXPERIMENT, install)
    name = (own.name if own else None) if arm == "own" else arm
    fields = {"experiment": experiment} | ({} if name is None else {"arm": name})
    common = {"clock": type(make.observation().clock)(clock.wall_ms(), 5_000, "b" * 32)}
    seq = first
    events = []
    for _ in range(SLATES):
        slate = [Slot(f"i{rank}", rank, False, 0.9, 0.9) for rank in range(SLOTS)]
        decision = make.decision(seq=seq, slate=slate, **fields, **common)
        events.append(decision)
        for slot in range(SLOTS):
            seq += 1
            value = 1.0 if rng.random() < rate else -1.0
            events.append(
                make.outcome(decision, slot, value, seq=seq, updates_state=False, **common)
            )
        seq += 1
    return events


def upload_events(store, clock, events):
    """Store events as a collector does that receives them now."""
    now = clock.wall_ms()
    lines = [segment_format.encode_line(codec.encode(event), now, now) for event in events]
    name = segment_format.new_file_name("segments", clock)
    LocalObjectStore(store).put(name, segment_format.pack(lines))


def fleet(store, clock, rates, installs=INSTALLS, **options):
    """Upload what installs did, each clicking at the rate of its arm."""
    events = []
    for install in installs:
        arm = assigned_arm(EXPERIMENT, install)
        events += events_of(install, rates[arm.name if arm else "rest"], clock, **options)
    upload_events(store, clock, events)


RATES = {"rest": 0.3, "popular": 0.2, "bold": 0.3}


def test_arms_are_compared_with_the_rest(tmp_path, shell):
    """Popular items are worse than the recommender, bold exploration is not known to differ, and
    the command says what the function finds."""
    clock = FakeClock()
    fleet(tmp_path / "events", clock, RATES)
    report = compare_arms(str(tmp_path / "events"), EXPERIMENT)
    found = {arm.name: arm for arm in report.arms}
    assert list(found) == ["rest", "popular", "bold"]
    assert [arm.verdict for arm in report.arms] == ["control", "worse", "not known yet"]
    for name, rate in RATES.items():
        assert found[name].rate.low < rate < found[name].rate.high
    low, high = found["popular"].change
    assert low < -1 / 3 < high < 0.0
    assert report.is_fair
    assert report.misassigned == 0
    assert sum(arm.installs for arm in report.arms) == len(INSTALLS)

    (tmp_path / "experiment.toml").write_text(FILE)
    arguments = ["--events", tmp_path / "events", "--experiment", tmp_path / "experiment.toml"]
    said = shell.json("experiment", *arguments)
    assert [arm["verdict"] for arm in said["arms"]] == ["control", "worse", "not known yet"]
    assert said["is_fair"] is True
    status, out, _ = shell.run("experiment", *arguments, "--control", "popular")
    assert (status, "popular" in out, "better" in out) == (0, True, True)


def test_lost_installs_of_an_arm_are_noticed(tmp_path):
    """Where half of an arm's installs never report, the comparison is called unfair."""
    clock = FakeClock()
    lost = [
        install
        for number, install in enumerate(INSTALLS)
        if not (number % 2 and assigned_arm(EXPERIMENT, install) == EXPERIMENT.arms[1])
    ]
    fleet(tmp_path, clock, RATES, lost)
    assert not compare_arms(str(tmp_path), EXPERIMENT).is_fair


def test_only_the_own_arm_and_the_own_experiment_count(tmp_path):
    """Decisions of another experiment, and of another arm than the install's, change nothing."""
    clock = FakeClock()
    fleet(tmp_path, clock, RATES, INSTALLS[:300])
    before = compare_arms(str(tmp_path), EXPERIMENT)
    after = SLATES * (SLOTS + 1) + 1
    install = next(each for each in INSTALLS if assigned_arm(EXPERIMENT, each) is None)
    wrong = events_of(install, 1.0, clock, arm="bold", first=after)
    other = events_of(install, 1.0, clock, experiment="other", first=2 * after - 1)
    upload_events(tmp_path, clock, [*wrong, *other])
    found = compare_arms(str(tmp_path), EXPERIMENT)
    assert found.misassigned == SLATES
    assert found.arms == before.arms


def test_every_day_may_be_looked_at(tmp_path):
    """Three days later it is the fourth look, and its bounds are wider."""
    clock = FakeClock()
    fleet(tmp_path, clock, RATES, INSTALLS[:300])
    first = compare_arms(str(tmp_path), EXPERIMENT)
    clock.advance(3 * DAY)
    upload_events(tmp_path, clock, events_of(INSTALLS[400], 0.3, clock))
    fourth = compare_arms(str(tmp_path), EXPERIMENT)
    assert (first.look, fourth.look) == (1, 4)
    assert fourth.arms[1].rate.low < first.arms[1].rate.low


def test_nothing_reported_yet_is_no_error_and_a_wrong_control_is(tmp_path):
    """Every arm is then unknown; the message for a control names the arms."""
    upload_events(tmp_path, FakeClock(), [EventFactory(INSTALLS[0]).observation(seq=1)])
    report = compare_arms(str(tmp_path), EXPERIMENT)
    assert [arm.verdict for arm in report.arms[1:]] == ["not known yet"] * 2
    assert report.is_fair
    with pytest.raises(ValueError, match="expected one of rest, popular, bold"):
        compare_arms(str(tmp_path), EXPERIMENT, "poplar")


def test_the_file_gives_what_the_bundle_and_the_report_need(tmp_path):
    """An arm's exploration has the bundle's fields where the file says nothing else."""
    path = tmp_path / "experiment.toml"
    path.write_text(FILE)
    assert read_experiment(path, Exploration(epsilon=0.1, pool=20)) == EXPERIMENT
    for text in ("arms = 3", "name = 'e'", "name = 'e'\n[[arms]]\nname = 'a'", "=", "arms = [3]"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"experiment\.toml: expected `name` and `arms`"):
            read_experiment(path, Exploration())
