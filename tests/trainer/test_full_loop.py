"""Two nights of the demo on a small synthetic log: real processes, a collector outage, a kill."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from unittest.mock import patch

import pytest

from sanderling import Engine
from sanderling.bundle.reader import Bundle
from sanderling.ranking.golden_check import faults
from sanderling_quantize.build_bundle import build
from sanderling_quantize.encoders.build_encoder import Encoding
from sanderling_quantize.gate import GateError, Thresholds
from sanderling_trainer.data.files import from_rows, read_file, write_file
from sanderling_trainer.demo.people import PeopleSettings
from sanderling_trainer.demo.run import Demo, DemoSettings
from sanderling_trainer.evaluation import ope
from sanderling_trainer.evaluation.simulators.population import PopulationSettings
from sanderling_trainer.event_log.reader import read_segments
from sanderling_trainer.event_log.summary import DAY_MS
from sanderling_trainer.policy.model.config import Config
from tests.support.worlds import write_checkerboard, write_language_model

pytestmark = pytest.mark.lab

LENIENT = Thresholds(
    cosine_seen=-1,
    cosine_unseen=-1,
    spearman_seen=-1,
    spearman_unseen=-1,
    neighbours_seen=0,
    neighbours_unseen=0,
    new_item=-1,
    slate=0.5,
    drift=1,
    latency=9,
)
FEW = Encoding("nano", steps=5)
LENIENT_GATE = ope.GateThresholds(margin=1.0, min_decisions=50, max_standard_errors=1e6)


PEOPLE = PeopleSettings(
    PopulationSettings(users=100, items=40, nights=2, mean_attraction=0.2, slots=5),
    devices=6,
)


def run_demo(folder):
    """Run the demo with the collector down for 2 s and devices killed; return its summary."""
    items, log = write_checkerboard(folder, users=300, steps=20)
    model = write_language_model(folder / "model")
    config = Config(
        language_model=str(model),
        dim=16,
        state=24,
        hidden=24,
        epochs=60,
        batch_events=60,
        learning_rate=5e-3,
        pool=20,
        id_dropout=0.05,
    )
    settings = DemoSettings(2.0, True, config, (), PEOPLE, FEW, LENIENT)
    with patch("sanderling_trainer.evaluation.ope.report.GateThresholds", lambda: LENIENT_GATE):
        return Demo(folder / "demo", settings).run(items, log).summary


@pytest.fixture(scope="module")
def finished(shared):
    """Return the folder and the summary of one demo."""
    folder, summary = shared("demo", run_demo)
    return folder / "demo", summary


def retrain_arguments(demo, out):
    """Return the command that retrains on a demo's events, from its checkpoint."""
    return (
        "retrain",
        "--events",
        demo / "events",
        "--checkpoint",
        demo / "checkpoint",
        "--out",
        out,
    )


def test_nothing_is_lost_through_a_collector_outage_and_a_killed_device(finished):
    """Every reward acknowledged to the app is in the segments, and no event number is missing."""
    events = finished[1]["events"]
    assert events["lost"] == events["missing"] == events["conflicts"] == 0
    assert events["rewards"] > 500
    assert events["acknowledged"] == events["stored"] > events["rewards"]


def test_events_have_the_dates_of_their_nights(finished):
    """The second night's events are a day later than the first's; none counts as misdated."""
    log = read_segments(str(finished[0] / "events"))
    days = Counter(time // DAY_MS for time in log.time.values())
    assert log.misdated == 0
    assert len(days) == 2
    assert max(days) - min(days) == 1


def test_the_devices_take_what_the_gate_ships(finished):
    """After a verdict other than hold all devices swap to release 2, and the bundle is intact."""
    out, summary = finished
    gate = summary["nights"][0]["gate"]
    assert gate["verdict"] != "hold"
    assert gate["is_shipped"]
    assert [update["to"] for update in summary["updates"]] == [2] * 6
    assert [row["ours"]["releases"] for row in summary["nights"]] == [[1], [2]]
    assert [row["never"]["releases"] for row in summary["nights"]] == [[1], [1]]
    for number in (1, 2):
        bundle = Bundle.open(out / "releases" / str(number), verify=True)
        assert bundle.manifest.release == number
        assert faults(bundle) == []


def test_both_arms_meet_the_same_people(finished):
    """On the first night, before anything differs, both arms come equally near the best."""
    first = finished[1]["nights"][0]
    assert first["ours"]["slates"] == first["never"]["slates"] == 300
    shares = [first[arm]["share"]["value"] for arm in ("ours", "never")]
    assert 0.3 < min(shares) <= max(shares) <= 1.0
    assert abs(shares[0] - shares[1]) < 0.1
    assert first["ours"]["newcomers"] == first["ours"]["best_newcomers"] == 0.0
    assert finished[1]["nights"][1]["never"]["newcomers"] == 0.0


def test_the_policy_solves_the_checkerboard(finished):
    """On real later histories release 1 is clicked far more often than random items."""
    arms = {arm["name"]: arm for arm in finished[1]["replay"]["arms"]}
    assert arms["release 1"]["low"] > arms["random"]["high"] + 0.05


def test_the_demo_writes_its_files(finished):
    """Summary, page, bundles and checkpoint are written, and the page is self-contained."""
    out, summary = finished
    assert json.loads((out / "summary.json").read_text())["verdict"] == summary["verdict"]
    assert "http" not in (out / "report.html").read_text().replace("http://www.w3.org", "")
    for name in (
        "checkpoint/config.json",
        "checkpoint/encoder/config.json",
        "releases/1/manifest.json",
    ):
        assert (out / name).exists()


def test_a_bundle_that_fails_its_gate_is_not_written(finished, tmp_path):
    """A failed gate leaves no bundle and nothing else behind, and names the failing check."""
    strict = replace(LENIENT, cosine_seen=1.1)
    with pytest.raises(GateError, match="cosine, seen texts") as caught:
        build(finished[0] / "checkpoint", tmp_path / "bundle", encoding=FEW, thresholds=strict)
    assert not caught.value.rows[0].passed
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_never_overwritten(finished):
    """An existing folder is refused before anything is computed."""
    with pytest.raises(FileExistsError, match="never overwritten"):
        build(
            finished[0] / "checkpoint",
            finished[0] / "releases" / "1",
            encoding=FEW,
            thresholds=LENIENT,
        )


def test_the_engine_serves_what_the_lab_learned(finished):
    """A user who liked red things is shown unseen red things by the bundle."""
    red = [f"i{at:03d}" for at in range(0, 16, 2)]
    with Engine.open(finished[0] / "releases" / "1") as engine:
        for item in red:
            engine.observe("new user", item, "like")
        shown = engine.recommend("new user", k=6, exclude=red, greedy=True)
    assert sum(item.attributes["colour"] == "red" for item in shown) >= 5


def test_the_commands_work_one_by_one(finished, tmp_path, shell):
    """recommend, evaluate and retrain run on files, each ending stdout with one JSON object."""
    out = finished[0]
    items, log = (out / "tables" / f"{name}.parquet" for name in ("items-1", "interactions"))
    bundle, slates = out / "releases" / "1", tmp_path / "slates.parquet"
    recommended = shell.json(
        "recommend",
        "--bundle",
        bundle,
        "--interactions",
        log,
        "--k",
        5,
        "--keep-seen",
        "--out",
        slates,
    )
    users = recommended["users"]
    assert recommended["rows"] == 5 * users > 500
    evaluated = shell.json(
        "evaluate", "--slates", slates, "--interactions", log, "--items", items, "--k", 5
    )
    assert evaluated["users"] == users
    assert evaluated["recall@5"]["value"] > 0.2
    retrained = shell.json(
        *retrain_arguments(out, tmp_path / "next"),
        "--ship-anyway",
    )
    assert retrained["release"] == 2
    assert retrained["metrics"]["log"]["dropped"].get("state checksum differs", 0) == 0
    assert (tmp_path / "next" / "policy.safetensors").exists()


def test_a_new_catalog_reaches_the_devices(finished, tmp_path, shell):
    """Retrained with a table that lacks an item and has a new one, the next bundle has neither more
    nor less, and says which item is the newcomer.
    """
    out = finished[0]
    rows = read_file(out / "tables" / "items-1.parquet").to_pylist()
    new = {"item_id": "new", "text": "novel number 7", "colour": "red"}
    items = tmp_path / "items.parquet"
    write_file(items, from_rows(items, [*rows[:-1], new]))
    done = shell.json(*retrain_arguments(out, tmp_path / "next"), "--items", items, "--ship-anyway")
    catalog = done["metrics"]["catalog"]
    assert (catalog["items"], catalog["added"], catalog["removed"]) == (len(rows), 1, 1)
    assert any(note.startswith("1 of 1 items that --items lacks") for note in done["notes"])

    first = out / "releases" / "1"
    build(
        tmp_path / "next", tmp_path / "bundle", encoding=FEW, thresholds=LENIENT, encoder_of=first
    )
    bundle = Bundle.open(tmp_path / "bundle", verify=True)
    ids = list(bundle.ids())
    assert sorted(ids) == sorted(["new", *(row["item_id"] for row in rows[:-1])])
    assert bundle.items.newcomers.tolist() == [ids.index("new")]


def test_a_held_candidate_leaves_no_checkpoint(finished, tmp_path, shell, monkeypatch):
    """Where the release gate holds, retrain exits with 3 and writes metrics.json alone."""
    out = finished[0]
    strict = ope.GateThresholds(min_decisions=10**6)
    monkeypatch.setattr("sanderling_trainer.evaluation.ope.report.GateThresholds", lambda: strict)
    held = shell.json(
        *retrain_arguments(out, tmp_path / "next"),
        *("--bundle", tmp_path / "bundle"),
        status=3,
    )
    assert held["held"]
    assert [path.name for path in (tmp_path / "next").iterdir()] == ["metrics.json"]
    assert not (tmp_path / "bundle").exists()
    written = json.loads((tmp_path / "next" / "metrics.json").read_text())
    assert written["ope"]["gate"]["reasons"] == held["held"]
    assert next(iter(written)) == "sentence"
    assert held["sentence"] == written["sentence"]
    assert held["sentence"].startswith("Release 2 is held")


def test_errors_are_one_line(tmp_path):
    """A missing file ends in one line and exit status 1, without a traceback."""
    command = [sys.executable, "-m", "sanderling", "recommend", "--bundle", str(tmp_path)]
    command += ["--interactions", str(tmp_path / "none.csv"), "--out", str(tmp_path / "out.csv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("sanderling: ")
    assert "Traceback" not in done.stderr
