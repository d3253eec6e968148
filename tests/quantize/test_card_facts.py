"""The facts of a model card come from the metrics of the checkpoint."""

from __future__ import annotations

import json

import pytest

from sanderling_quantize.card_facts import card_facts

pytestmark = pytest.mark.lab

MODEL = {"name": "iALS", "users": 36, "ndcg@10": {"value": 0.1, "low": 0.0, "high": 0.2}}
TRAINED = {
    "log": {"events": 100, "users": 7, "items": 5, "repeats": False},
    "choice": {"loses": True, "tried": [{}] * 50},
    "ranking": [{"protocol": "warm users", "users": 36, "models": [MODEL]}],
}
RETRAINED = {
    "sentence": "Release 2 ships.",
    "log": {"received": 5},
    "learning": {"learner": "click_regression", "decisions": 801, "loss": [1.0]},
}


@pytest.mark.parametrize(
    ("metrics", "facts"),
    [
        (
            TRAINED,
            {
                "log": {"events": 100, "users": 7},
                "ranking": [
                    {
                        "protocol": "warm users",
                        "users": 36,
                        "models": [{"name": "iALS", "ndcg@10": MODEL["ndcg@10"]}],
                    }
                ],
                "loses": True,
            },
        ),
        (
            RETRAINED,
            {
                "learning": {"learner": "click_regression", "decisions": 801},
                "sentence": "Release 2 ships.",
            },
        ),
        (None, {}),
    ],
    ids=["trained", "retrained", "without metrics"],
)
def test_only_what_a_card_shows_is_kept(tmp_path, metrics, facts):
    """Of `train`'s and of `retrain`'s metrics, and nothing where a checkpoint has none."""
    if metrics is not None:
        (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert card_facts(tmp_path) == facts
