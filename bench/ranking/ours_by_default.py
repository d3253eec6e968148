"""Sanderling as `sanderling train` makes it without a flag: settings by the log, then one fit."""

from __future__ import annotations

import sys

import numpy as np
import torch

from bench.ranking.data import Log
from bench.ranking.ours import Sanderling, text_vectors
from sanderling_trainer.cli.choice_table import choice_text
from sanderling_trainer.data.tables import Interactions
from sanderling_trainer.policy.choose_settings import choose
from sanderling_trainer.policy.fit import TextVectors, TrainingPart, fit_policy
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.train_options import SETTINGS


class SanderlingByDefault(Sanderling):
    """The product's default path; `choice` says what it chose."""

    name = "Sanderling, by default"
    kind = 1  # "like" among the policy's kinds

    def fit(self, train: Log, seed: int) -> SanderlingByDefault:
        """Choose the settings on inner windows of a log, and fit on all of it."""
        text = torch.from_numpy(text_vectors(train.texts))
        vectors = TextVectors(text, torch.empty(0, text.shape[1]))
        log = interactions(train)
        items = len(train.texts)
        self.choice = choose(log, items, Config(seed=seed), SETTINGS, vectors)
        print(choice_text(self.choice.as_dict()), file=sys.stderr, flush=True)
        part = TrainingPart(log, items, self.choice.repeats)
        self.network = fit_policy(part, self.choice.config, vectors).context.network
        self.popularity = part.popularity
        return self


def interactions(log: Log) -> Interactions:
    """Return a log as the product reads it: every event a like."""
    n = len(log)
    return Interactions(
        user=log.user,
        item=log.item,
        time=log.time,
        reward=np.ones(n, np.float32),
        kind=np.zeros(n, np.int64),
        context=np.full(n, -1),
        users=[str(user) for user in range(int(log.user.max(initial=-1)) + 1)],
        kinds=["like"],
        contexts=[],
    )
