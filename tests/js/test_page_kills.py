"""Tabs and browsers killed at any moment: no reward is lost once its promise resolved, none comes
twice, and the lab can replay what they decided.
"""

from __future__ import annotations

import json

import pytest

from sanderling.cli.tiny import BUNDLE
from sanderling_trainer.event_log.examples import examples_of
from tests.support import pages
from tests.support.javascript import needs_node
from tests.support.page_kills import kill_often

pytestmark = [pytest.mark.browser, pytest.mark.lab, needs_node, pages.needs_browser]


def check(statistics):
    """No reward was lost or came twice, and every decision with an outcome can be learned from."""
    assert (statistics.lost, statistics.twice) == (0, 0)
    assert 0 <= statistics.unconfirmed <= statistics.kills
    log = statistics.log
    assert (log.missing, log.conflicts, log.losses) == (0, 0, [])

    catalog = (BUNDLE / "catalog.jsonl").read_text(encoding="utf-8").splitlines()
    manifest = json.loads((BUNDLE / "manifest.json").read_bytes())
    ids = [json.loads(line)["id"] for line in catalog]
    examples = examples_of(log, ids, manifest["kinds"], manifest["sizes"]["text"])
    assert set(examples.dropped) <= {"no outcome"}
    assert len(examples.decisions) == log.outcomes()


def test_no_stored_reward_is_lost_to_a_kill(playwright, page_server, tmp_path):
    """Five kills, one of them of the whole browser."""
    statistics = kill_often(playwright, page_server, tmp_path / "profile", 5)
    assert len(statistics.promised) >= 5
    check(statistics)


@pytest.mark.soak
def test_no_reward_of_a_thousand_is_lost_to_two_hundred_kills(playwright, page_server, tmp_path):
    """The same for 200 kills and at least 1,000 rewards."""
    statistics = kill_often(playwright, page_server, tmp_path / "profile", 200)
    print(
        f"{len(statistics.promised)} rewards, {statistics.lost} lost, {statistics.twice} twice,"
        f" {statistics.unconfirmed} unconfirmed"
    )
    check(statistics)
    assert len(statistics.promised) >= 1000
