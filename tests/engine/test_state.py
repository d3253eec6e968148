"""The recurrence on the device, against a loop in float64 from the equations."""

from __future__ import annotations

import math

import numpy as np

from sanderling.bundle.reader import Bundle
from sanderling.ranking.scorer import Scorer
from tests.support.bundles import write_bundle


def test_the_recurrence_equals_its_equations(tmp_path):
    """State and user vector after 300 events equal a float64 loop over the documented equations within 1e-4."""
    write_bundle(tmp_path / "b")
    scorer = Scorer(Bundle.open(tmp_path / "b"))
    w = {name: tensor.astype(np.float64) for name, tensor in scorer.bundle.policy.items()}
    rng = np.random.default_rng(0)
    state, exact = scorer.state.start(), [0.0] * len(w["state.decay"])
    for _ in range(300):
        row, kind = int(rng.integers(50)), int(rng.integers(3))
        v = scorer.vector(row)
        state = scorer.state.step(state, v, scorer.bundle.manifest.kinds[kind])
        for c, decay in enumerate(w["state.decay"]):
            x = w["state.kind"][kind][c] * sum(
                w["state.input"][c][j] * float(v[j]) for j in range(len(v))
            )
            exact[c] = decay * exact[c] + math.sqrt(1 - decay**2) * x
    np.testing.assert_allclose(state, exact, atol=1e-4)
    mean = sum(exact) / len(exact)
    spread = math.sqrt(sum((x - mean) ** 2 for x in exact) / len(exact) + 1e-5)
    normal = np.array([(x - mean) / spread for x in exact]) * w["output.gain"] + w["output.shift"]
    hidden = w["output.w1"] @ normal + w["output.b1"]
    context = rng.normal(size=16).astype(np.float32)
    user = (
        w["output.w2"] @ (hidden / (1 + np.exp(-hidden)))
        + w["output.b2"]
        + w["context.project"] @ context
    )
    np.testing.assert_allclose(scorer.state.user(state, context), user, atol=1e-4)


def test_unknown_kinds_count_as_the_first(tmp_path):
    """An event of a kind that the policy never saw moves the state as the first kind does."""
    write_bundle(tmp_path / "b")
    scorer = Scorer(Bundle.open(tmp_path / "b"))
    start, v = scorer.state.start(), scorer.vector(3)
    np.testing.assert_array_equal(
        scorer.state.step(start, v, "never heard"), scorer.state.step(start, v, "view")
    )
