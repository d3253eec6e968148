"""Which bundle serves: only the one that served is confirmed, and only the one that failed is left."""

from __future__ import annotations

import pytest

from sanderling.contract.bundle import Bundle
from sanderling.serving import Serving
from tests.bundles import write_bundle


@pytest.fixture
def serving(tmp_path):
    """A bundle that serves and has not proven itself."""
    write_bundle(tmp_path / "bundle")
    found = Serving(Bundle.open(tmp_path / "bundle"), tmp_path / "state")
    found.unproven = True
    return found


def test_a_decision_of_the_bundle_before_confirms_nothing(serving, tmp_path):
    """A decision that was begun before a swap says nothing of the new bundle."""
    serving.confirm(Bundle.open(tmp_path / "bundle"))
    assert serving.unproven
    serving.confirm(serving.scorer.bundle)
    assert not serving.unproven
    serving.close(5.0)


def test_two_threads_that_fail_together_go_back_once(serving, tmp_path):
    """Who failed on a bundle that another thread has left already does not roll back what serves now."""
    before = serving.scorer
    serving.go_back("failed", Bundle.open(tmp_path / "bundle"))
    assert serving.scorer is before
    assert serving.unproven
    serving.go_back("failed", before.bundle)
    assert serving.scorer is not before
    assert not serving.unproven
