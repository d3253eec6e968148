"""The engine's commands, without the trainer: CSV in, CSV out."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points

import pytest

from sanderling.cli import app, tables
from sanderling.cli.app import COMMANDS, LAB_COMMANDS
from sanderling.errors import TableError
from sanderling.events import schema as wire
from sanderling.tables.event_log import ReadOptions
from tests.support.bundles import record, write_bundle
from tests.support.doc_blocks import ROOT

WAITING = "OMP_WAIT_POLICY"
LOG = [
    ("007", "item-3", "1", "1"),
    ("anna", "item-5", "3", "-1"),
    ("anna", "item-4", "2", "1"),
    ("anna", "item-9", "4.5", "0.5"),
]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sanderling", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def write_log(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("user_id", "item_id", "timestamp", "reward"), *rows])
    return path


def recommend(tmp_path, *more: object) -> subprocess.CompletedProcess[str]:
    return run(
        "recommend", "--bundle", tmp_path / "bundle", "--interactions", tmp_path / "log.csv",
        "--k", 5, "--out", tmp_path / "slates.csv", *more,
    )  # fmt: skip


def test_recommend_scores_every_user_once(tmp_path):
    """Each user gets k unseen items by rank, best first; ids stay text; the last line of stdout is
    one JSON object.
    """
    write_bundle(tmp_path / "bundle")
    write_log(tmp_path / "log.csv", LOG)
    done = recommend(tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["users"] == 2
    with (tmp_path / "slates.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = [(user, str(rank)) for user in ("007", "anna") for rank in range(1, 6)]
    assert [(row["user_id"], row["rank"]) for row in rows] == expected
    for user in ("007", "anna"):
        mine = [row for row in rows if row["user_id"] == user]
        assert not {row["item_id"] for row in mine} & {
            item for name, item, *_ in LOG if name == user
        }
        assert [float(row["score"]) for row in mine] == sorted(
            (float(row["score"]) for row in mine), reverse=True
        )


def test_keep_seen_recommends_seen_items_too(tmp_path):
    """With --keep-seen nothing is excluded: a user who had every item but one gets a full slate."""
    write_bundle(tmp_path / "bundle")
    write_log(tmp_path / "log.csv", [("anna", f"item-{row}", str(row), "1") for row in range(49)])
    assert "rows" in recommend(tmp_path, "--keep-seen", "--json").stdout
    with (tmp_path / "slates.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5


def test_slates_are_printed_with_titles(tmp_path):
    """Without --out the terminal shows the slates of the users named, or of those with the latest
    events, and what they had; --json has the rows with titles.
    """
    write_bundle(tmp_path / "bundle")
    write_log(tmp_path / "log.csv", LOG)
    command = ["recommend", "--bundle", tmp_path / "bundle", "--interactions", tmp_path / "log.csv"]
    shown = run(*command, "--k", 2)
    assert (shown.returncode, shown.stderr) == (0, "")
    first, *slate = shown.stdout.splitlines()[:3]
    assert first == f"anna: 3 events, the latest: {title(9)} · {title(5)} · {title(4)}"
    assert [line.split()[0] for line in slate] == ["1", "2"]

    done = json.loads(run(*command, "--k", 2, "--user", "007", "--json").stdout.splitlines()[-1])
    assert (done["users"], done["rows"], done["out"]) == (1, 2, "")
    assert [row["user_id"] for row in done["slates"]] == ["007", "007"]
    for row in done["slates"]:
        assert row["title"] == title(int(row["item_id"].removeprefix("item-")))

    unknown = run(*command, "--user", "bob")
    assert (unknown.returncode, unknown.stderr) == (
        1, "sanderling: --user: expected a user of the log, found 'bob'\n"
    )  # fmt: skip
    assert run(*command, "--checkpoint", "c").returncode == 2
    assert run(*command[:1], *command[3:]).returncode == 2


def test_printed_slates_say_why(tmp_path):
    """With --why a sentence stands below each item, and in its row of --json; it needs a bundle,
    and a terminal."""
    write_bundle(tmp_path / "bundle")
    write_log(tmp_path / "log.csv", LOG)
    command = ["recommend", "--bundle", tmp_path / "bundle", "--interactions", tmp_path / "log.csv"]
    why = run(*command, "--k", 2, "--user", "anna", "--why", "--json")
    rows = json.loads(why.stdout.splitlines()[-1])["slates"]
    assert all(row["why"].startswith(f"“{row['title']}” is shown because ") for row in rows)
    printed = run(*command, "--k", 2, "--user", "anna", "--why").stdout.splitlines()
    assert [line.strip() for line in printed[2::2]] == [row["why"] for row in rows]
    assert run(*command, "--why", "--out", tmp_path / "slates.csv").returncode == 2
    assert run("recommend", "--checkpoint", "c", *command[3:], "--why").returncode == 2


@pytest.mark.parametrize(("given", "expected"), [({}, "PASSIVE"), ({WAITING: "ACTIVE"}, "ACTIVE")])
def test_waiting_threads_sleep_unless_the_environment_says_otherwise(given, expected):
    """A command says how threads of OpenMP wait, before torch is imported; a setting stays."""
    code = (
        "import os, sys; sys.argv[1:] = ['doctor', '--json']\n"
        "from sanderling.cli.app import make_app\n"
        "make_app()(standalone_mode=False)\n"
        f"print(os.environ[{WAITING!r}])"
    )
    environment = {name: value for name, value in os.environ.items() if name != WAITING}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | given, capture_output=True, text=True
    )
    assert done.stdout.split()[-1] == expected, done.stderr


def title(row: int) -> str:
    return str(record(row)["title"])


@pytest.mark.parametrize(
    ("row", "column"),
    [(("", "item-1", "1", "1"), "user_id"), (("a", "item-1", "soon", "1"), "timestamp")],
)
def test_bad_rows_are_named(tmp_path, row, column):
    """A bad value ends in one line with file, row and column, and no slates are written."""
    write_bundle(tmp_path / "bundle")
    write_log(tmp_path / "log.csv", [LOG[0], row])
    done = recommend(tmp_path)
    assert done.returncode == 1
    assert f"log.csv, row 2, column `{column}`: expected " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "slates.csv").exists()


def test_doctor_reports_every_part():
    """The report gives the state of each part and the reason, as text and as one JSON object."""
    done = run("doctor")
    assert done.returncode == 0, done.stdout
    assert "same answers as numpy" in done.stdout or "numpy, the best available" in done.stdout
    parts = json.loads(run("doctor", "--json").stdout)
    expected = {"engine", "processor", "kernels", "storage", "extra text", "extra serve"}
    assert expected <= set(parts)
    assert all(name in parts["extra serve"]["why"] for name in ("uvicorn", "httptools", "typer"))
    assert all(part["state"] in ("ok", "absent") and part["why"] for part in parts.values())


def test_doctor_fails_on_an_unknown_setting(monkeypatch):
    """An unknown SANDERLING_KERNELS is named with the possible ones, and the status is 1."""
    monkeypatch.setenv("SANDERLING_KERNELS", "fortran")
    done = run("doctor")
    assert done.returncode == 1
    assert "expected one of compiled, numba, numpy, found 'fortran'" in done.stdout


def test_the_schema_names_every_field_that_can_be_sent():
    """`events --schema` prints a JSON Schema in which each kind of event lists its fields and
    allows no others.
    """
    done = run("events", "--schema")
    assert done.returncode == 0
    kinds = {
        name: kind
        for name, kind in json.loads(done.stdout)["$defs"].items()
        if "type" in kind["properties"]
    }
    assert set(kinds) == {"Decision", "Outcome", "Observation", "StateReset", "Loss"}
    for name, kind in kinds.items():
        assert kind["additionalProperties"] is False
        assert set(kind["properties"]) == {"type", *getattr(wire, name).__struct_fields__}


def test_events_needs_an_option():
    """`events` alone is wrong usage; the message names the option."""
    done = run("events")
    assert done.returncode == 2
    assert "--schema" in done.stderr


def test_the_schema_as_json_is_one_line():
    """`events --schema --json` prints the same schema as one JSON object on one line."""
    done = run("events", "--schema", "--json")
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout) == json.loads(run("events", "--schema").stdout)


def test_quiet_prints_errors_and_json_only(tmp_path):
    """With --quiet a command that succeeds prints nothing, or its JSON object; an error still ends
    in its line.
    """
    write_bundle(tmp_path / "bundle")
    write_log(tmp_path / "log.csv", LOG)
    command = [
        "recommend",
        "--bundle",
        tmp_path / "bundle",
        "--out",
        tmp_path / "slates.csv",
        "--interactions",
    ]
    done = run("--quiet", *command, tmp_path / "log.csv")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = run("--quiet", *command, tmp_path / "log.csv", "--json")
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")
    done = run("--quiet", *command, tmp_path / "none.csv")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)


def test_verbose_shows_where_an_error_came_from(tmp_path):
    """An error's traceback is logged with --verbose; the last line is the error's, as without."""
    command = [
        "recommend",
        "--bundle",
        tmp_path,
        "--interactions",
        tmp_path / "none.csv",
        "--out",
        tmp_path / "s.csv",
    ]
    plain, verbose = run(*command), run("--verbose", *command)
    assert "Traceback" not in plain.stderr
    assert "Traceback" in verbose.stderr
    assert plain.stderr.splitlines()[-1] == verbose.stderr.splitlines()[-1]
    assert run("--log-level", "info", *command).stderr == verbose.stderr
    assert run("--log-level", "error", *command).stderr == plain.stderr


@pytest.mark.parametrize("flags", [("--verbose", "--quiet"), ("--quiet", "--log-level", "info")])
def test_the_levels_of_logging_exclude_each_other(flags):
    """Two at once are wrong usage."""
    done = run(*flags, "doctor")
    assert done.returncode == 2
    words = " ".join(done.stderr.replace("│", " ").split())
    assert "found several; give one" in words


def test_an_invalid_id_is_named_with_its_row(tmp_path):
    """An id that is too long for an event ends in one line with file and row."""
    write_bundle(tmp_path / "bundle")
    write_log(tmp_path / "log.csv", [LOG[0], ("anna", "x" * 600, "1", "1")])
    done = recommend(tmp_path)
    assert done.returncode == 1
    assert "log.csv, row 2, column `item_id`: expected an item id of 1 to 512" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("out", "message"), [
    ("slates.xlsx", "expected a file name ending in .csv or .parquet"),
    ("log.csv/slates.csv", "expected a folder above it, found the file"),
    ("bundle.csv", "expected the name of a file, found a folder"),
])  # fmt: skip
def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path, out, message):
    """A wrong --out is named before the bundle is opened."""
    write_log(tmp_path / "log.csv", LOG)
    (tmp_path / "bundle.csv").mkdir()
    command = [
        "recommend",
        "--bundle",
        tmp_path / "none",
        "--interactions",
        tmp_path / "log.csv",
        "--out",
    ]
    done = run(*command, tmp_path / out)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_doctor_works_without_typer():
    """Where the extra `cli` is missing `doctor` prints the same table, and other commands say what
    to install."""
    code = "import sys, importlib.util as u; find = u.find_spec\n"
    code += "u.find_spec = lambda name, *a: None if name == 'typer' else find(name, *a)\n"
    code += "sys.modules['typer'] = None\nfrom sanderling.cli import main; main()"

    def without_typer(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert without_typer("doctor").stdout == run("doctor").stdout
    report = json.loads(without_typer("doctor", "--json").stdout)
    assert report["storage"]["state"] == "ok"
    done = without_typer("events", "--schema")
    assert (done.returncode, "sanderling[cli]" in done.stderr) == (1, True)


@pytest.mark.parametrize("name", sorted(LAB_COMMANDS))
def test_a_command_of_the_lab_says_what_to_install(monkeypatch, capsys, name):
    """With the engine alone installed, a command of the lab says which package has it; one that
    nobody has is still unknown."""
    ours = [
        point for point in entry_points(group=COMMANDS) if point.module.startswith("sanderling.")
    ]
    monkeypatch.setattr(app, "entry_points", lambda **_: ours)

    assert run_here(name, "--out", "x") == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert f"`{name}` is of the lab: pip install 'sanderling-trainer[cpu,minilm]'" in said

    assert run_here("trian") == 2
    assert "No such command 'trian'" in capsys.readouterr().err


def run_here(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        app.make_app()(list(arguments), prog_name="sanderling")
    return ended.value.code


def test_the_commands_of_the_lab_are_known():
    """The engine's list has just the commands that the other two distributions add to its own."""
    added: set[str] = set()
    for part in ("trainer", "quantize"):
        project = tomllib.loads((ROOT / part / "pyproject.toml").read_text(encoding="utf-8"))
        added |= set(project["project"]["entry-points"][COMMANDS])
    engine = tomllib.loads((ROOT / "engine" / "pyproject.toml").read_text(encoding="utf-8"))
    assert added - set(engine["project"]["entry-points"][COMMANDS]) == LAB_COMMANDS


def test_a_missing_file_says_what_to_do(tmp_path):
    """A path with nothing at it, and one in a folder that is missing, end in a sentence that says
    so; another reason that the operating system gives stays."""
    expected = {
        tmp_path / "tokn.txt": "expected a file or a folder, found nothing; check the path",
        tmp_path / "none" / "x.csv": "expected a folder to hold it, found none; make it, or check"
        " the path",
    }
    for path, reason in expected.items():
        with pytest.raises(FileNotFoundError) as raised:
            path.open()
        assert app.one_line(raised.value) == f"{path}: {reason}"

    assert app.one_line(PermissionError(13, "Permission denied", "a")) == "a: Permission denied"


def test_a_device_without_the_trainer_reads_csv_alone(tmp_path, monkeypatch):
    """Without the trainer CSV is read, packed or not; what needs Arrow is refused by name."""
    monkeypatch.setattr(tables, "entry_points", lambda **_: ())
    log = write_log(tmp_path / "log.CSV", LOG)
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    read = tables.read_log(str(log), ReadOptions())
    assert read == tables.read_log(str(packed), ReadOptions())
    assert (read.users, read.times) == (["007", "anna", "anna", "anna"], [1, 2, 3, 4])
    for source in ("log.parquet", "s3://bucket/log.parquet", str(tmp_path)):
        with pytest.raises(TableError, match=r"expected a file name ending in \.csv or \.csv\.gz"):
            tables.read_log(source, ReadOptions())
    with pytest.raises(TableError, match="Parquet needs the trainer"):
        tables.check_output(tmp_path / "slates.parquet")
