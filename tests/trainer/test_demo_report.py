"""The demo's report: its verdict in words, and an HTML page that fetches and trusts nothing."""

from __future__ import annotations

import re

import pytest

from sanderling_trainer.demo.report import table, verdict, write_report

pytestmark = pytest.mark.lab


def summary(value: float, low: float, high: float) -> dict:
    """Return a small summary whose last two arms differ by this."""
    arms = [
        {
            "name": name,
            "ctr": ctr,
            "low": ctr - 0.01,
            "high": ctr + 0.01,
            "clicks": 100,
            "shown": 1000,
        }
        for name, ctr in [
            ("random", 0.02),
            ("popularity", 0.1),
            ("release 1", 0.2),
            ("release 2", 0.2 + value),
        ]
    ]
    difference = {"name": "release 2 - release 1", "value": value, "low": low, "high": high}
    return {
        "data": {
            "name": "<script>alert(1)</script>",
            "users": 3,
            "items": 4,
            "interactions": 5,
            "licence": "none",
        },
        "replay": {
            "definition": "clicks are replayed",
            "users": 9,
            "arms": arms,
            "difference": difference,
        },
    }


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.03, 0.01, 0.05, "is better than release 1"),
        (0.01, -0.01, 0.03, "is not better than release 1"),
        (-0.03, -0.05, -0.01, "is worse than release 1"),
    ],
)
def test_the_verdict_follows_the_interval(value, low, high, text):
    """Better only if the whole interval is above 0, worse if below, otherwise not better."""
    assert text in verdict(summary(value, low, high))


def test_the_page_is_self_contained_and_escapes(tmp_path):
    """The page fetches nothing, and markup in the data stays text."""
    page = tmp_path / "report.html"
    write_report(summary(0.01, -0.01, 0.03), page)
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "<svg" in text
    assert not re.search(r"https?:|//\w+\.|@import|url\((?!#)", text)
    assert "is not better than" in text


def test_missing_parts_are_left_out(tmp_path):
    """An empty summary gives a page and a table, not an error."""
    write_report({}, tmp_path / "empty.html")
    assert (tmp_path / "empty.html").stat().st_size > 200
    assert isinstance(table({}), str)


def test_refused_estimates_and_lost_rewards_are_marked(tmp_path):
    """A refused estimate gives its reason, and lost rewards are marked as bad."""
    row = {
        "policy": "candidate",
        "estimator": "SIPS",
        "value": 0.2,
        "low": 0.1,
        "high": 0.3,
        "ess": 7.0,
    }
    row |= {"max_weight": 90.0, "refused": "effective sample size 7 is below 100"}
    content = {"ope": {"estimates": [row], "difference": None}, "events": {"stored": 9, "lost": 2}}
    write_report(content, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "refused: effective sample size 7 is below 100" in text
    assert 'class="bad">2' in text
    assert "refused: effective sample size 7" in table(content)


def test_the_verdict_mentions_a_better_baseline():
    """The verdict adds that popularity was clicked more often, when it was."""
    content = summary(0.03, 0.01, 0.05)
    content["replay"]["arms"][1]["ctr"] = 0.3
    assert "Popularity was clicked more often than release 2" in verdict(content)


def test_every_part_alone_is_rendered(tmp_path):
    """Each part of the summary makes a page by itself."""
    interval = {"value": 0.1, "low": 0.05, "high": 0.15}
    model = {"name": "EASE", "ndcg@10": interval, "recall@10": interval, "coverage@10": 0.4}
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
            "policy_gradient": {"surrogate": [], "kl": []},
        },
        "seconds": {"train": 3.0, "train: encode": 1.0, "all": 3.0},
        "machine": {"python": "3.11"},
    }
    for name, part in parts.items():
        write_report({name: part}, tmp_path / f"{name}.html")
        assert table({name: part})
    assert "<svg" in (tmp_path / "ranking.html").read_text(encoding="utf-8")
    assert 'class="bad">failed' in (tmp_path / "quantize.html").read_text(encoding="utf-8")
    assert "train: encode" not in (tmp_path / "seconds.html").read_text(encoding="utf-8")
