"""Trains RecTools' SASRec step by step, driven by JSON lines on stdin, in its own environment.

    {"log": PATH.npz, "settings": {...}, "seed": 0}      start: user, item int64 [e], oldest first
    {"epochs": 1}                                        train; answers {"seconds": ...}
    {"users": PATH.npy, "items": n, "scores": PATH.npy}  write float32 [u, n]

Scores are -inf for a user who was not in the log. RecTools would train on a user's last
`session_max_len` events alone; here every window of that length is a training example.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from typing import Any

import numpy as np


class Worker:
    """One model in training."""

    def __init__(self, log: str, settings: dict[str, Any], seed: int) -> None:
        import pandas as pd
        from pytorch_lightning import seed_everything
        from rectools import Columns
        from rectools.dataset import Dataset
        from rectools.models import SASRecModel
        from rectools.models.nn.item_net import IdEmbeddingsItemNet

        seed_everything(seed, verbose=False)
        events = np.load(log)
        frame = pd.DataFrame(
            {Columns.User: events["user"], Columns.Item: events["item"], Columns.Weight: 1.0}
        )
        frame[Columns.Datetime] = pd.to_datetime(np.arange(len(frame)), unit="s")
        self.columns, self.dataset = Columns, Dataset.construct(frame)
        place = frame.groupby(Columns.User).cumcount(ascending=False) // settings["session_max_len"]
        windows = frame.assign(
            **{Columns.User: frame[Columns.User] + place * (1 + frame[Columns.User].max())}
        )
        self.windows = Dataset.construct(windows)
        nets = (IdEmbeddingsItemNet,)
        self.model = SASRecModel(
            loss="softmax", item_net_block_types=nets, deterministic=True, **settings
        )

    def train(self, epochs: int) -> dict[str, float]:
        """Train on, and return how long it took."""
        start = time.perf_counter()
        self.model.fit_partial(self.windows, min_epochs=epochs, max_epochs=epochs)
        return {"seconds": time.perf_counter() - start}

    def score(self, users: str, items: int, scores: str) -> dict[str, float]:
        """Write the scores of users by their histories in the log."""
        asked = np.load(users)
        found = np.full((len(asked), items), -np.inf, np.float32)
        known = asked[np.isin(asked, self.dataset.user_id_map.external_ids)]
        reco = self.model.recommend(
            known, self.dataset, k=items, filter_viewed=False, on_unsupported_targets="ignore"
        )
        place = np.searchsorted(asked, reco[self.columns.User].to_numpy(np.int64))
        found[place, reco[self.columns.Item].to_numpy(np.int64)] = reco[
            self.columns.Score
        ].to_numpy(np.float32)
        np.save(scores, found)
        return {}


def main() -> None:
    """Answer each line with a line; whatever the libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.filterwarnings("ignore")
    worker: Worker | None = None
    for line in sys.stdin:
        asked, answer = json.loads(line), {}
        if "log" in asked:
            worker = Worker(**asked)
        elif worker is not None:
            answer = worker.train(asked["epochs"]) if "epochs" in asked else worker.score(**asked)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
