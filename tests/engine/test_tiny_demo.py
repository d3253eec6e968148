"""The first look: `sanderling demo --tiny`, by the engine alone."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from sanderling import Engine
from sanderling.cli import app, tiny

MAX_BYTES = 200_000
"""Of the bundle: the engine's wheel stays light."""

ENGINE_DEMO = EntryPoint("demo", "sanderling.cli.commands:demo", app.COMMANDS)
DOCTOR = EntryPoint("doctor", "sanderling.cli.commands:doctor", app.COMMANDS)
"""With one command alone typer has no commands."""
LAB_DEMO = EntryPoint("demo", "sanderling_trainer.cli.lab:demo", app.COMMANDS)


def shown(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Run the command line of the engine alone; return exit status, stdout and stderr."""
    monkeypatch.setattr(app, "entry_points", lambda group: [ENGINE_DEMO, DOCTOR])
    monkeypatch.setattr(sys, "argv", ["sanderling", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.run()
    return (ended.value.code or 0, *capsys.readouterr())


def test_the_first_look_shows_slates_that_rewards_change(monkeypatch, capsys):
    """Without the lab three slates are printed with titles and probabilities; explored slots are
    marked, each reward is stored, and the text says where to go on.
    """
    status, text, errors = shown(monkeypatch, capsys, "demo", "--tiny")
    assert (status, errors) == (0, "")
    rows = re.findall(r"^ +\d+([* ]) +(0\.\d{3})  (.+), .+ \((\w+)\)$", text, re.MULTILINE)
    assert len(rows) == tiny.SLATES * tiny.SLOTS
    # the best book has .8 and its share of the pool's .2, any other the share alone
    assert all(float(chance) < 0.05 or float(chance) > 0.8 for _, chance, *_ in rows)
    assert all(mark == "*" for mark, chance, *_ in rows if float(chance) < 0.05)
    assert text.count("the reward of 1 is on the disk") == tiny.SLATES
    assert re.search(r"by slate\[0\]\.why\(\): “[^”]+”\s(is|was)\s", text)
    assert "the same bit for bit" in text
    assert "sanderling train" in text


def test_rewards_move_the_slate_to_their_shelf():
    """One finished book fills the greedy slate with its shelf; before, several shelves share it."""
    with Engine.open(tiny.BUNDLE) as engine:
        before = engine.recommend("anna", tiny.SLOTS, greedy=True)
        book = next(item for item in before if item.attributes["shelf"] == tiny.FAVOURITE)
        engine.observe("anna", book.id, "click")
        after = engine.recommend("anna", tiny.SLOTS, exclude=[book], greedy=True)
    assert len({item.attributes["shelf"] for item in before}) > 2
    assert {item.attributes["shelf"] for item in after} == {tiny.FAVOURITE}


def test_the_result_is_one_json_object():
    """--json has the slates as dicts, what was rewarded, and the bundle, whichever distribution's
    `demo` is installed.
    """
    command = [sys.executable, "-m", "sanderling", "demo", "--tiny", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["slates"]) == len(result["rewarded"]) == tiny.SLATES
    for slate, item in zip(result["slates"], result["rewarded"], strict=True):
        assert item in [row["id"] for row in slate["items"]]
    assert all(result["stored"])
    assert result["replayed_identically"]
    assert result["why"]["item"] == result["slates"][-1]["items"][0]["id"]


def test_without_the_lab_the_full_demo_names_what_to_install(monkeypatch, capsys):
    """`demo` without --tiny is wrong usage that says what the full one needs."""
    status, text, errors = shown(monkeypatch, capsys, "demo")
    assert (status, text) == (2, "")
    assert "pip install" in errors


@pytest.mark.parametrize("points", [[ENGINE_DEMO, LAB_DEMO], [LAB_DEMO, ENGINE_DEMO]])
def test_the_labs_demo_replaces_the_engines(monkeypatch, points):
    """Where both are installed, in either order, `demo` is the lab's, which has --tiny too."""
    pytest.importorskip("sanderling_trainer")
    monkeypatch.setattr(app, "entry_points", lambda group: points)
    [command] = app.make_app().registered_commands
    assert command.callback is LAB_DEMO.load()


def test_the_bundle_is_small_and_for_this_engine():
    """The package carries at most 200 kB of it, and it opens with this version."""
    assert sum(path.stat().st_size for path in tiny.BUNDLE.iterdir()) <= MAX_BYTES
    with Engine.open(tiny.BUNDLE, verify=True) as engine:
        assert engine.release == 1


def test_the_bundle_has_the_books_that_it_is_made_from():
    """Titles, authors, years and shelves are those of tools/tiny/books.csv, in its order."""
    fields = ("title", "author", "year", "shelf")
    with (Path(__file__).parents[2] / "tools/tiny/books.csv").open(encoding="utf-8") as file:
        books = [[row[name] for name in fields] for row in csv.DictReader(file)]
    with (tiny.BUNDLE / "catalog.jsonl").open(encoding="utf-8") as file:
        items = [json.loads(line) for line in file]
    assert [[str(item[name]) for name in fields] for item in items] == books
