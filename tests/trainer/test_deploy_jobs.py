"""The files in deploy/ for the jobs agree with the program; the nightly script survives kills."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prometheus_client.exposition import generate_latest
from typer.testing import CliRunner

from sanderling.cli import app
from sanderling.cli.app import make_app
from sanderling_trainer.collector.limits import Limits
from sanderling_trainer.collector.server import Collector
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.jobs.figures import FIGURES, FLEET, FLEET_NAME, NAME, VARIABLE
from sanderling_trainer.jobs.lease import LEASE_S
from tests.support.commands import declared
from tests.support.fakes import FakeClock

pytestmark = pytest.mark.lab

DEPLOY = Path(__file__).parents[2] / "deploy"
METRIC = re.compile(r"\bsanderling_[a-z_]+")

# Records its arguments; answers with the exit status that the test gave for its command; ends the
# script that calls it before or after the n-th call.
STUB = """
import json, os, pathlib, signal, sys

calls = pathlib.Path("calls")
number = len(calls.read_text().splitlines()) if calls.exists() else 0
kill = os.environ.get("KILL", "").split()

def kill_script(when):
    if kill == [when, str(number)]:
        os.kill(os.getppid(), signal.SIGKILL)
        sys.exit(1)

kill_script("before")
arguments = sys.argv[1:]
with calls.open("a") as file:
    file.write(json.dumps(arguments) + "\\n")
status = json.loads(os.environ.get("STATUS", "{}")).get(arguments[1], 0)
status = json.loads(os.environ.get("STATUS", "{}")).get(arguments[0], status)

def folder(option, **files):
    path = pathlib.Path(arguments[arguments.index(option) + 1])
    if path.exists():
        sys.exit(f"{path} exists")
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))

if arguments[0] == "retrain" and status == 0:
    verdict = os.environ.get("VERDICT", "ship")
    out = pathlib.Path(arguments[arguments.index("--out") + 1])
    if not out.exists():  # it returns what an earlier call did
        folder("--out", metrics={"verdict": verdict}, config={"release": 7})
        folder("--bundle")
if arguments[:2] == ["release", "again"]:
    folder("--out", config={"release": 8})
if arguments[0] == "quantize":
    folder("--out")
kill_script("after")
sys.exit(status)
"""


class Nights:
    """A shop's folder, and the nightly script with a `sanderling` that only records its calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "shop"
        (self.folder / "checkpoints" / "first").mkdir(parents=True)
        (self.folder / "releases" / "first").mkdir(parents=True)
        (self.folder / "active").symlink_to("checkpoints/first")
        (self.folder / "releases" / "latest").symlink_to("first")

        self.path = folder / "bin"
        self.path.mkdir()
        stub = self.path / "sanderling"
        stub.write_text(f"#!{sys.executable}\n{STUB}")
        stub.chmod(0o755)

    def run(self, day: str = "day", **variables: object) -> int:
        """Run one night; return the script's exit status."""
        settings = {name: str(value) for name, value in variables.items()}
        if "STATUS" in variables:
            settings["STATUS"] = json.dumps(variables["STATUS"])
        environment = {
            "PATH": f"{self.path}:{os.environ['PATH']}",
            "SHOP": str(self.folder),
            "DAY": day,
            **settings,
        }
        script = ["sh", str(DEPLOY / "nightly.sh")]
        return subprocess.run(script, env=environment, capture_output=True, timeout=60).returncode

    def calls(self) -> list[list[str]]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def names(self) -> list[str]:
        """Return the commands that were called, without their options."""
        return [" ".join(word for word in call[:2] if word[0] not in "-c") for call in self.calls()]

    def serving(self) -> tuple[str, str]:
        """Return the checkpoint that is active, and the bundle that serves."""
        active = (self.folder / "active").readlink()
        latest = (self.folder / "releases" / "latest").readlink()
        return active.name, latest.name


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


@pytest.fixture(autouse=True)
def every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line have what the distributions declare, whatever is installed."""
    monkeypatch.setattr(app, "entry_points", declared)


def is_valid(arguments: list[str]) -> bool:
    """Return whether the command line accepts these arguments; it does not run them."""
    return CliRunner().invoke(make_app(), [*arguments, "--help"]).exit_code == 0


def check_commands(nights: Nights) -> None:
    """Check that the real command line knows every command and option that was called."""
    for call in nights.calls():
        assert is_valid(call), call
        assert not is_valid([*call, "--more"]), call


def test_a_night_ships_and_serves(nights: Nights) -> None:
    """A candidate that the gate lets through is published to all and serves; run again on the same
    day nothing is made twice.
    """
    assert nights.run() == 0
    assert nights.names() == ["retrain", "release publish", "release refresh"]
    assert nights.serving() == ("day", "day")
    assert nights.run() == 0
    assert nights.names()[3:] == ["release refresh"]
    check_commands(nights)


@pytest.mark.parametrize("status", [3, 4])
def test_a_night_without_a_release(nights: Nights, status: int) -> None:
    """Held, or nothing new: what serves stays, and signatures are kept valid."""
    assert nights.run(STATUS={"retrain": status}) == 0
    assert nights.names() == ["retrain", "release refresh"]
    assert nights.serving() == ("first", "first")


def test_an_error_ends_the_night(nights: Nights) -> None:
    """A failed retraining, or publication, is the script's failure."""
    assert nights.run(STATUS={"retrain": 1}) == 1
    assert nights.run("next", STATUS={"publish": 1}) == 1
    assert nights.serving() == ("first", "first")


def test_a_canary_is_promoted_or_undone(nights: Nights) -> None:
    """A canary is published to few and waits; then it serves all, or what served before is
    published again under a higher number.
    """
    assert nights.run(VERDICT="canary") == 0
    assert nights.serving() == ("first", "first")
    [publication] = [call for call in nights.calls() if call[:2] == ["release", "publish"]]
    assert publication[publication.index("--percent") + 1] == "5"
    assert nights.run("two", STATUS={"canary": 4}) == 0
    assert (nights.folder / "canary").readlink() == Path("checkpoints/day")

    undone = Nights(nights.folder.parent / "undone")
    shutil.rmtree(undone.folder)
    shutil.copytree(nights.folder, undone.folder, symlinks=True)
    assert nights.run("three") == 0
    assert nights.serving() == ("day", "day")
    assert undone.run("three", STATUS={"canary": 3}) == 0
    assert undone.serving() == ("day-undone", "day-undone")
    for shop in (nights, undone):
        assert not (shop.folder / "canary").is_symlink()
        check_commands(shop)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("verdict", ["ship", "canary"])
def test_a_killed_night_is_ended_by_the_next(tmp_path: Path, when: str, verdict: str) -> None:
    """Killed before or after any command, the same night or the next one ends the work: what was
    published serves, or is the canary, and no number is made twice.
    """
    for number in range(3):
        for day in ("day", "next"):
            nights = Nights(tmp_path / f"{number}-{day}")
            assert nights.run(VERDICT=verdict, KILL=f"{when} {number}") == -9
            assert nights.run(day, VERDICT=verdict, STATUS={"canary": 4}) == 0
            published = [
                Path(call[call.index("--bundle") + 1]).name
                for call in nights.calls()
                if call[:2] == ["release", "publish"]
            ]
            link = "active" if verdict == "ship" else "canary"
            assert (nights.folder / link).readlink().name == published[-1]
            if number < 2:  # not yet over: what was begun is ended, and nothing else is published
                assert len(set(published)) == 1
            assert not (nights.folder / "publishing").exists()


def cron_jobs() -> list[dict]:
    documents = yaml.safe_load_all((DEPLOY / "nightly.yaml").read_text())
    return [document for document in documents if document["kind"] == "CronJob"]


def test_the_cron_jobs_run_what_the_image_has() -> None:
    """Commands and options exist, volumes are declared, no job runs twice at a time, and secrets
    are those that the comments create.
    """
    for job in cron_jobs():
        spec = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        [container] = spec["containers"]
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in spec["volumes"]
        }
        assert VARIABLE in {variable["name"] for variable in container["env"]}
        if container["command"] == ["sanderling"]:
            assert is_valid(container["args"])
        else:
            assert container["command"] == ["nightly.sh"]
            names = {variable["name"] for variable in container["env"]} - {VARIABLE}
            script = (DEPLOY / "nightly.sh").read_text()
            assert all(f"{name}=${{{name}:-" in script for name in names)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_units_are_valid(tmp_path: Path) -> None:
    """systemd finds no fault in the units, whose commands exist; programs are stood in for."""
    commands = []
    for unit in (DEPLOY / "systemd").iterdir():
        text = unit.read_text()
        commands += re.findall(r"^ExecStart=-?\S+/sanderling (.*)$", text, re.MULTILINE)
        (tmp_path / unit.name).write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text))
    assert all(is_valid(command.split()) for command in commands)
    assert len(commands) == 4
    units = sorted(tmp_path.iterdir())
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_dag_calls_existing_commands() -> None:
    """The DAG is Python, its commands exist, and retries wait for longer than a lease."""
    source = (DEPLOY / "airflow_dag.py").read_text()
    compile(source, "airflow_dag.py", "exec")
    signed = "--repository repository --keys keys"
    commands = [
        ast.unparse(keyword.value).strip("f'\"").replace("{SIGNED}", signed)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "bash_command"
    ]
    assert len(commands) == 5
    for command in commands:
        program, *arguments = command.split()
        assert program == "nightly.sh" or is_valid(arguments), command
    [minutes] = re.findall(r"timedelta\(minutes=(\d+)\)", source)
    assert 60 * int(minutes) > LEASE_S


def existing_metrics() -> set[str]:
    """Return the names of all metrics of collector, jobs and fleet, those of histograms
    included."""
    server = Collector(LocalObjectStore(Path()), None, FakeClock(), Limits())
    collector = generate_latest(server.metrics.registry).decode()
    server.close()
    names = set(re.findall(r"^# TYPE (\S+)", collector, re.MULTILINE))
    histograms = set(re.findall(r"^# TYPE (\S+) histogram", collector, re.MULTILINE))
    pushed = {NAME + figure for figure in FIGURES} | {FLEET_NAME + figure for figure in FLEET}
    return names | {f"{name}_bucket" for name in histograms} | pushed


def test_alerts_and_dashboard_use_existing_metrics() -> None:
    """Each expression names metrics that collector or jobs have, and the dashboard shows nearly all
    of them.
    """
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    alerts = [rule for group in rules for rule in group["rules"]]
    panels = json.loads((DEPLOY / "dashboard.json").read_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    for expression in [*(rule["expr"] for rule in alerts), *shown]:
        found = set(METRIC.findall(expression))
        assert found, expression
        assert found <= existing_metrics(), found - existing_metrics()
    missing = existing_metrics() - set(METRIC.findall(" ".join(shown)))
    assert {name for name in missing if not name.endswith(("_seconds", "_created"))} == set()
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    assert all({"summary", "action"} <= rule["annotations"].keys() for rule in alerts)


def test_alerts_know_the_limits() -> None:
    """What an alert or its text says of the program's limits is true."""
    text = (DEPLOY / "alerts.yaml").read_text()
    assert f"{Limits.waiting_bytes // 2**20} MiB that may wait" in text
    assert "> 48 * 1024 * 1024" in text
    [*memory] = {
        container["resources"]["limits"]["memory"]
        for job in cron_jobs()
        for container in job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    }
    assert "8Gi" in memory
    assert "8 * 1024 * 1024 * 1024" in text
