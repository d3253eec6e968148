"""What judge and learner make of decisions that an arm of an experiment made."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from sanderling.bundle import manifest as manifests
from sanderling.bundle.manifest import Arm, Experiment, Exploration
from sanderling_trainer.evaluation import ope
from sanderling_trainer.event_log.merge_examples import merge_examples
from sanderling_trainer.jobs.trust import active_policy
from sanderling_trainer.policy.training.click_regression import ClickRegression
from tests.support import bundles
from tests.support.float_networks import METADATA
from tests.trainer import test_shaped_slates as slates

pytestmark = pytest.mark.lab

PLAN = Exploration("sequential", 0.3, 20, newcomers=0.3)
POPULAR = Experiment("shelf", (Arm("popular", 0.5, personalized=False),))


def write_with_arms(folder, **options):
    """Write a bundle with an experiment."""
    bundles.write_bundle(folder, **options)
    manifest = msgspec.structs.replace(manifests.read(folder), experiment=POPULAR)
    (folder / manifests.MANIFEST).write_bytes(manifests.dump(manifest))


def test_an_arm_teaches_and_does_not_judge(tmp_path, monkeypatch):
    """Real devices of which some are in an arm without personalization: the lab believes them all,
    learns from all clicks, and judges by the others alone, since an arm is another policy."""
    monkeypatch.setattr(slates, "write_bundle", write_with_arms)
    fleet = slates.Fleet(tmp_path, PLAN, lambda rng: {}, devices=8)
    in_arm = np.array([bool(event.arm) for event in fleet.decisions])
    assert 0 < in_arm.sum() < len(in_arm)

    found = fleet.found.decisions
    assert not fleet.found.dropped
    assert found.in_arm.tolist() == in_arm.tolist()
    merged = merge_examples([fleet.examples, fleet.examples]).decisions
    assert merged.in_arm.tolist() == 2 * in_arm.tolist()
    assert (ClickRegression(fleet.context, found)._weight > 0.0).all()

    kept, _, left_out = ope.usable(found, active_policy(METADATA, fleet.config))
    assert left_out == {"decided by an arm of an experiment": int(in_arm.sum())}
    assert not kept.in_arm.any()
