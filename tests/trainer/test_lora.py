"""Fine-tuning the language model: pairs come closer, and what is left is an ordinary model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("peft")

from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.data.tables import Interactions
from sanderling_trainer.policy.model.language_model import LanguageModel
from sanderling_trainer.policy.training.lora import LoraSettings, fine_tune, info_nce, pairs_of
from tests.support.worlds import THINGS, write_language_model

pytestmark = pytest.mark.lab

TEXTS = [
    f"{colour} {thing} number {at}" for at, thing in enumerate(THINGS) for colour in ("red", "blue")
]
SETTINGS = LoraSettings(rate=5e-3, batch=16, rank=4)


def log(events: list[tuple[int, int, float, float]]) -> Interactions:
    """Return a log of (user, item, days, reward)."""
    user, item, days, reward = (np.array(column) for column in zip(*events, strict=True))
    n = len(user)
    none = np.full(n, -1)
    return Interactions(
        user,
        item,
        (days * DAY).astype(int),
        reward,
        np.zeros(n, int),
        none,
        ["a", "b"],
        ["like"],
        [],
    )


def pairs() -> np.ndarray:
    """Items of one colour belong together."""
    return np.array([(i, j) for i in range(20) for j in range(i + 2, 20, 2)])


def similarity(model: LanguageModel) -> float:
    """Return how much closer pairs are than others, on average, in cosines."""
    vectors = model.encode(TEXTS)
    cosines = vectors @ vectors.T
    same = (np.arange(20)[:, None] - np.arange(20)) % 2 == 0
    return float(cosines[same & ~np.eye(20, dtype=bool)].mean() - cosines[~same].mean())


def test_pairs_are_what_one_user_liked_close_in_time():
    """Neighbours of one user within the days, each pair once, no item with
    itself, nothing disliked.
    """
    found = log(
        [
            (0, 5, 0.0, 1),
            (0, 3, 0.5, 1),
            (0, 9, 0.6, -1),
            (0, 3, 0.7, 1),
            (0, 5, 0.8, 1),
            (0, 7, 9.0, 1),
            (1, 8, 9.1, 1),
            (1, 7, 9.2, 1),
        ]
    )
    rng = np.random.default_rng(0)
    assert sorted(map(tuple, pairs_of(found, 1.0, 99, rng))) == [(3, 5), (7, 8)]
    assert len(pairs_of(found, 1.0, 1, rng)) == 1


def test_info_nce_is_the_textbook_loss():
    """It equals minus the mean log share of the partner, both ways, without what is no negative."""
    torch.manual_seed(0)
    left, right = (torch.nn.functional.normalize(torch.randn(4, 5), dim=1) for _ in range(2))
    same = torch.zeros(4, 4, dtype=torch.bool)
    same[0, 2] = True
    scores = (left @ right.T / 0.1).exp() * ~same
    expected = (
        -(
            (scores.diag() / scores.sum(1)).log().mean()
            + (scores.diag() / scores.sum(0)).log().mean()
        )
        / 2
    )
    torch.testing.assert_close(info_nce(left, right, same, 0.1), expected)


def test_pairs_come_closer_and_the_merged_model_is_the_fine_tuned_one(tmp_path, monkeypatch):
    """Pairs gain on others; merged weights give the adapter's vectors within 1e-5, and survive
    saving and loading.
    """
    from peft.tuners.lora import LoraModel

    model = LanguageModel(str(write_language_model(tmp_path / "model")))
    before, kept = similarity(model), {}
    original = LoraModel.merge_and_unload

    def watched(self, *args, **kwargs):
        adapted = LanguageModel(str(tmp_path / "model"))
        adapted.model = self.model.eval()
        kept["vectors"] = adapted.encode(TEXTS)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(LoraModel, "merge_and_unload", watched)
    losses = fine_tune(model, TEXTS, np.tile(pairs(), (6, 1)), SETTINGS)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2
    assert similarity(model) > before + 0.1
    np.testing.assert_allclose(model.encode(TEXTS), kept["vectors"], atol=1e-5)
    model.save(tmp_path / "merged")
    assert not list((tmp_path / "merged").glob("adapter*"))
    np.testing.assert_allclose(
        LanguageModel(str(tmp_path / "merged")).encode(TEXTS), model.encode(TEXTS), atol=1e-6
    )


def test_only_attention_projections_move(tmp_path):
    """All other weights are bit for bit the base model's, and a second model of the same
    folder is untouched.
    """
    folder = str(write_language_model(tmp_path / "model"))
    base, model = LanguageModel(folder), LanguageModel(folder)
    fine_tune(model, TEXTS, pairs(), SETTINGS)
    moved = {
        name
        for name, weight in model.model.state_dict().items()
        if not torch.equal(weight, base.model.state_dict()[name])
    }
    assert {name.rsplit(".", 2)[1] for name in moved} == {"query", "key", "value"}
    assert {name.rsplit(".", 1)[1] for name in moved} == {"weight"}


def test_too_few_pairs_is_an_error_that_says_so(tmp_path):
    """One pair has nothing to be told apart from."""
    model = LanguageModel(str(write_language_model(tmp_path / "model")))
    with pytest.raises(ValueError, match="expected at least 2 pairs"):
        fine_tune(model, TEXTS, pairs()[:1])
