"""The report: what it says about a release that is not better, and what it must never fetch or trust."""

from __future__ import annotations

import pytest

from sanderling_trainer.fleet.report import table, verdict, write_report

pytestmark = pytest.mark.lab


def summary(value: float, low: float, high: float) -> dict:
    """Return a small summary whose last two arms differ by this."""
    arms = [
        {"name": name, "ctr": ctr, "low": ctr - 0.01, "high": ctr + 0.01, "clicks": 100, "shown": 1000}
        for name, ctr in [("random", 0.02), ("popularity", 0.1), ("release 1", 0.2), ("release 2", 0.2 + value)]
    ]
    difference = {"name": "release 2 - release 1", "value": value, "low": low, "high": high}
    return {
        "data": {"name": "<script>alert(1)</script>", "users": 3, "items": 4, "interactions": 5, "licence": "none"},
        "replay": {"definition": "clicks are replayed", "users": 9, "arms": arms, "difference": difference},
    }


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (0.03, 0.01, 0.05, "is better than release 1"),
        (0.01, -0.01, 0.03, "is not better than release 1"),
        (-0.03, -0.05, -0.01, "is worse than release 1"),
    ],
)
def test_the_verdict_is_plain(value, low, high, said):
    """Better only when the whole interval is above 0, worse when it is below, and not better in between."""
    assert said in verdict(summary(value, low, high))


def test_the_page_is_self_contained_and_escapes(tmp_path):
    """The page fetches nothing, and markup in the data stays text."""
    page = tmp_path / "report.html"
    write_report(summary(0.01, -0.01, 0.03), page)
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    for namespace in ("http://www.w3.org/", "http://purl.org/", "http://creativecommons.org/"):
        text = text.replace(namespace, "")
    assert 'src="http' not in text
    assert 'href="http' not in text
    assert "is not better than" in text


def test_missing_parts_are_left_out(tmp_path):
    """An empty summary gives a page and a table, not an error."""
    write_report({}, tmp_path / "empty.html")
    assert (tmp_path / "empty.html").stat().st_size > 200
    assert isinstance(table({}), str)
