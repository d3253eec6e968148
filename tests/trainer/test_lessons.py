"""Which installs judge a night."""

from __future__ import annotations

import numpy as np
import pytest

from sanderling_trainer.jobs.lessons import MAX_JUDGING, judges_of

pytestmark = pytest.mark.lab

INSTALLS = [f"{number:032x}" for number in range(90)]


def test_a_third_of_the_installs_with_new_decisions_judges_other_ones_each_night():
    """Installs without new decisions never judge, and the choice depends on the release."""
    new_of = np.where(np.arange(90) % 3 == 0, 0, 7)
    judges = judges_of(INSTALLS, new_of, 2)
    assert len(set(judges.tolist())) == 20
    assert (new_of[judges] > 0).all()
    assert set(judges_of(INSTALLS, new_of, 3).tolist()) != set(judges.tolist())


@pytest.mark.parametrize("each", [1, 5_000, 30_000, MAX_JUDGING, 3 * MAX_JUDGING])
def test_no_more_judge_than_a_night_can_hold(each):
    """Whole installs judge while they have at most `MAX_JUDGING` decisions; one always does."""
    new_of = np.full(90, each)
    judges = judges_of(INSTALLS, new_of, 2)
    assert len(judges) == max(1, min(30, MAX_JUDGING // each))


def test_one_install_alone_has_no_judge():
    """Nobody judges what it taught."""
    assert len(judges_of(INSTALLS, np.eye(90, dtype=int)[4] * 9, 2)) == 0
    assert len(judges_of(INSTALLS[:0], np.empty(0, int), 2)) == 0
