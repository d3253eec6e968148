"""Sanderling as devices hold it: trained, quantized, built into a bundle, run by the engine.

Every score comes from the bundle's int8 rows by the device's kernel. States advance event by event;
items that are new since the training are added by their text through the bundle's int8 encoder. For
some users the slate is also taken from a whole `Engine` without exploration and must be the same.
The encoder is distilled once in a process, since the language model is always the same.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.ranking.candidates import Candidate
from bench.ranking.data import Log
from bench.ranking.ours import Sanderling, visited
from bench.ranking.protocols import Queries, Rows, top
from sanderling import Engine
from sanderling.bundle.reader import Bundle
from sanderling.ranking.scorer import Scorer
from sanderling_quantize.build_bundle import build
from sanderling_quantize.encoders.build_encoder import Encoding
from sanderling_trainer.data.tables import Catalog
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.checkpoint import Checkpoint, CheckpointMetadata
from sanderling_trainer.policy.exposure import Exposure
from sanderling_trainer.policy.model.language_model import LanguageModel

KIND = "view"
SLATE, ENGINE_USERS = 20, 25


class OnDevice:
    """The int8 bundle of a `Sanderling`."""

    name = "Sanderling, int8 on the device path"
    shared_encoder: Path | None = None
    """The bundle whose encoder the later ones copy."""

    def __init__(self, **settings: float) -> None:
        self.policy = Sanderling(**settings)

    def fit(self, train: Log, seed: int) -> OnDevice:
        """Train on a log, and build the bundle."""
        self.policy.fit(train, seed)
        self.folder = Path(tempfile.mkdtemp(prefix="sanderling-bench-"))
        self.texts, self.moment = train.texts, int(train.time.max())
        return self

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """Return float32 [u, n], those that the device ranks by."""
        scorer = self._scorer(queries)
        found = np.empty((len(queries), len(queries.texts)), np.float32)
        for at, rows in enumerate(queries.items):
            ranking = scorer.rank(_user(scorer, rows), len(queries.texts))
            found[at, _places(ranking.rows, scorer)] = ranking.scores
        self._agree(queries, found[:ENGINE_USERS, : len(self.texts)])
        return found

    def _scorer(self, queries: Queries) -> Scorer:
        bundle = self.folder / "bundle"
        if not bundle.exists():
            self._build(bundle, int(queries.now.max()))
        scorer, known = Scorer(Bundle.open(bundle)), len(self.texts)
        return scorer.with_overlay(
            [{"id": str(known + at), "text": text} for at, text in enumerate(queries.texts[known:])]
        )

    def _build(self, bundle: Path, now: int) -> None:
        policy, source = self.policy, self.folder / "checkpoint"
        policy.set_time(now)
        LanguageModel().save(source / "encoder")
        texts = self.texts
        catalog = Catalog(
            ids=[str(at) for at in range(len(texts))],
            texts=texts,
            records=[{"id": str(at), "title": text} for at, text in enumerate(texts)],
        )
        metadata = CheckpointMetadata(
            "bench", 1, 0, [KIND], policy.repeats, 0, self.moment, "0" * 64
        )
        config = replace(policy.config, epsilon=0.0)
        known = Exposure.of_log(np.arange(len(texts)), len(texts))
        trained = Checkpoint(policy.network, catalog, config, metadata, policy.popularity, known)
        checkpoint.save(source, trained, {})
        build(source, bundle, encoding=Encoding(), encoder_of=OnDevice.shared_encoder)
        shutil.rmtree(source)
        OnDevice.shared_encoder = OnDevice.shared_encoder or bundle

    def _agree(self, queries: Queries, found: NDArray[np.float32]) -> None:
        with Engine.open(self.folder / "bundle") as engine:
            for at, expected in enumerate(_slates(found, queries.items)):
                for row in queries.items[at]:
                    engine.observe(user=str(at), item=str(row), kind=KIND)
                slate = engine.recommend(
                    user=str(at), k=SLATE, exclude=[str(row) for row in queries.items[at]]
                )
                if [int(item.id) for item in slate] != expected.tolist():
                    raise AssertionError(
                        f"user {at}: expected the slate {expected.tolist()}, found {slate}"
                    )


def _user(scorer: Scorer, rows: Rows) -> NDArray[np.float32]:
    state = scorer.user_model.initial_state()
    for row in rows.tolist():
        state = scorer.user_model.step(state, scorer.vector(row), KIND)
    return scorer.user_model.user_vector(state)


def _places(rows: Rows, scorer: Scorer) -> list[int]:
    return [
        int(scorer.item(row).id) if row >= scorer.bundle.manifest.sizes.items else int(row)
        for row in rows
    ]


def _slates(scores: NDArray[np.float32], seen: list[Rows]) -> Rows:
    masked = scores.copy()
    for row, had in zip(masked, seen, strict=False):
        row[had] = -np.inf
    return top(masked, SLATE)


MODELS = {
    "Sanderling, int8 on the device path": Candidate(
        OnDevice, seeded=True, suits=visited, like="Sanderling"
    )
}
