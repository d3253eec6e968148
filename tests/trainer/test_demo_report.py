"""The demo's report: its verdict in words, and an HTML page that fetches and trusts nothing."""

from __future__ import annotations

import re

import pytest

from sanderling_trainer.report.demo_summary import table, verdict
from sanderling_trainer.report.page import write_page

pytestmark = pytest.mark.lab


def interval(value: float, width: float = 0.01) -> dict:
    """Return an interval around a value."""
    return {"value": value, "low": value - width, "high": value + width}


def arm(release: int, clicks: float) -> dict:
    """Return one arm of a night."""
    return {
        "releases": [release],
        "slates": 900,
        "clicks": interval(clicks),
        "share": interval(clicks / 4),
        "newcomers": 0.01 * release,
        "best_newcomers": 0.1,
    }


def summary(value: float, low: float, high: float) -> dict:
    """Return a small summary of two nights, the last of which differs by this."""
    same = {"value": 0.0, "low": -0.1, "high": 0.1}
    gate = {"verdict": "canary", "sentence": "Release 2 goes ahead.", "is_shipped": True}
    nights = [
        {"night": 1, "ours": arm(1, 2), "never": arm(1, 2), "difference": same, "gate": gate},
        {
            "night": 2,
            "ours": arm(2, 2 + value),
            "never": arm(1, 2),
            "difference": {"value": value, "low": low, "high": high},
        },
    ]
    replayed = [
        {"name": name, "ctr": ctr, "low": ctr - 0.01, "high": ctr + 0.01, "clicks": 9, "shown": 90}
        for name, ctr in [("random", 0.02), ("popularity", 0.1), ("release 1", 0.2)]
    ]
    return {
        "data": {
            "name": "<script>alert(1)</script>",
            "people": 3,
            "users": 7,
            "items": 4,
            "newcomers": 1,
            "interactions": 5,
            "licence": "none",
        },
        "nights": nights,
        "replay": {"definition": "clicks are replayed", "users": 9, "arms": replayed},
    }


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.03, 0.01, 0.05, "The loop learns"),
        (0.01, -0.01, 0.03, "The loop has not learned"),
        (-0.03, -0.05, -0.01, "The loop has made it worse"),
    ],
)
def test_the_verdict_follows_the_interval(value, low, high, text):
    """It learns if the whole interval is above 0, is worse if below, else has not learned."""
    said = verdict(summary(value, low, high))
    assert text in said
    assert said.endswith("The people are simulated.")


def test_the_page_is_self_contained_and_escapes(tmp_path):
    """The page fetches nothing, and markup in the data stays text."""
    page = tmp_path / "report.html"
    write_page({"summary": summary(0.01, -0.01, 0.03)}, page)
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "<svg" in text
    assert not re.search(r"https?:|//\w+\.|@import|url\((?!#)", text)
    assert "The loop has not learned" in text


def test_missing_parts_are_left_out(tmp_path):
    """An empty summary gives a page and a table, not an error."""
    write_page({}, tmp_path / "empty.html")
    assert (tmp_path / "empty.html").stat().st_size > 200
    assert isinstance(table({}), str)


def test_lost_rewards_are_marked(tmp_path):
    """Lost rewards are marked as bad."""
    write_page({"summary": {"events": {"stored": 9, "lost": 2}}}, tmp_path / "page.html")
    assert 'class="bad">2' in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_every_night_is_told_in_terminal_and_page(tmp_path):
    """Both say that people are simulated, what each night came to, and what the gate said."""
    content = summary(0.3, 0.1, 0.5)
    write_page({"summary": content}, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    text = table(content)
    for part in ("Release 2 goes ahead.", "2.30"):
        assert part in text
        assert part in page
    assert "SIMULATED" in text
    assert "simulated people" in page
    assert "best possible" in page
    assert "never retrained" in page


def test_real_histories_are_one_line():
    """The replay on real histories is one line of the table, release 1 first."""
    lines = table(summary(0.3, 0.1, 0.5)).splitlines()
    (line,) = [line for line in lines if "real later histories" in line]
    assert line.index("release 1 20.00 %") < line.index("popularity 10.00 %")


def test_every_part_alone_is_rendered(tmp_path):
    """Each part of the summary makes a page by itself."""
    tenth = interval(0.1)
    model = {"name": "EASE", "ndcg@10": tenth, "recall@10": tenth, "coverage@10": 0.4}
    parts = {
        "ranking": [
            {
                "protocol": "warm users",
                "users": 5,
                "models": [model, {**model, "name": "Sanderling"}],
            }
        ],
        "quantize": {
            "checks": [{"check": "cosine", "value": 0.8, "threshold": 0.9, "passed": False}]
        },
        "latency": {"recommend_us": {"p50": 300.0, "p99": 900.0}},
        "bundle": {"bytes": 10, "files": {"manifest.json": 10}},
        "learning": {
            "warm_start": {"loss": [2.0, 1.0], "validation": []},
        },
        "seconds": {"train": 3.0, "train: encode": 1.0, "all": 3.0},
        "machine": {"python": "3.11"},
    }
    for name, part in parts.items():
        write_page({"summary": {name: part}}, tmp_path / f"{name}.html")
        assert table({name: part})
    assert "<svg" in (tmp_path / "ranking.html").read_text(encoding="utf-8")
    assert 'class="bad">failed' in (tmp_path / "quantize.html").read_text(encoding="utf-8")
    assert "train: encode" not in (tmp_path / "seconds.html").read_text(encoding="utf-8")
