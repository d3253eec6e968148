"""The baselines that are fitted once answer each question by itself."""

from __future__ import annotations

import numpy as np
import pytest

from sanderling_trainer.evaluation.peers import GRIDS, FittedPeers, grid

pytestmark = pytest.mark.lab

HISTORIES = [np.array([0, 1, 2]), np.array([1, 2]), np.array([2, 3, 4]), np.array([0, 4])]
LIKES = np.concatenate(HISTORIES)


def fitted() -> FittedPeers:
    return FittedPeers(HISTORIES, LIKES, np.arange(len(LIKES)), 5)


@pytest.mark.parametrize("name", list(GRIDS))
def test_questions_that_come_and_go_are_kept_apart(name):
    """Lists of users that are freed between calls, whose addresses come again, get the scores that
    baselines fitted anew have."""
    settings = grid(name)[0]
    peers = fitted()
    for row in range(5):
        for count in (1, 3):
            scores = peers.scores(name, settings, [np.array([row])] * count)
            alone = fitted().scores(name, settings, [np.array([row])] * count)
            np.testing.assert_array_equal(scores, alone)
