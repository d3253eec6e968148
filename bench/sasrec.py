"""SASRec with full cross-entropy as RecTools implements it: the sequential model to compare with.

Kang and McAuley 2018, with a softmax over all items instead of one negative (Klenitskiy and Vasilev
2023, "Turning dross into gold loss"). It runs in an environment of its own, `.bench-sasrec/` in the
repository root, which the first run creates (torch for the CPU only). It trains on every window of
`session_max_len` events and ranks from a user's last ones.

Each setting trains epoch by epoch on the inner training part, and after each epoch the validation
window gives its nDCG@10. It stops after `PATIENCE` epochs without a better one, since at first it
stays at the level of popularity, or when it has trained for `--seconds`. The best setting then
trains for its best number of epochs on all data before the test.

    python -m bench sasrec [--data PATH] [--set online_retail] [--seeds 5] [--seconds 300]

Writes the slates to `.bench-sasrec/NAME.npz`, which `python -m bench quality --sasrec` reads, and
returns the trials and each one's seconds of training until its best epoch, without evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.ranking import data
from bench.ranking.data import Log
from bench.ranking.protocols import K, Queries, Task, read, slates
from sanderling_trainer.evaluation import metrics

HOME = Path(__file__).parent.parent / ".bench-sasrec"
WORKER = Path(__file__).parent / "ranking" / "rectools_worker.py"
TORCH, RECTOOLS = "torch==2.13.0", "rectools[torch]==0.19.0"
PATIENCE, MOST_EPOCHS = 8, 60
COMMON = {"n_factors": 64, "n_blocks": 2, "n_heads": 2, "session_max_len": 50, "batch_size": 32}
SETTINGS: list[dict[str, Any]] = [
    {**COMMON, "lr": 1e-3, "dropout_rate": 0.2},
    {**COMMON, "lr": 1e-3, "dropout_rate": 0.5},
    {**COMMON, "lr": 1e-3, "dropout_rate": 0.2, "session_max_len": 100},
    {**COMMON, "lr": 3e-3, "dropout_rate": 0.5, "n_blocks": 1},
]


class SASRec:
    """A model of `bench.ranking.protocols` that trains epoch by epoch in a process of the
    peer's environment.
    """

    name = "SASRec"

    def __init__(self, settings: Mapping[str, Any], train: Log, seed: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [python(), str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
        log = Path(self.folder.name) / "log.npz"
        np.savez(log, user=train.user, item=train.item)
        self._ask(log=str(log), settings=dict(settings), seed=seed)

    def train(self, epochs: int) -> float:
        """Train on and return the seconds it took."""
        return float(self._ask(epochs=epochs)["seconds"])

    def fit(self, train: Log, seed: int) -> SASRec:
        """Do nothing: it was trained by `train`."""
        return self

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """Return float32 [u, n], -inf throughout for a user who was not in the log."""
        users, scores = (Path(self.folder.name) / name for name in ("users.npy", "scores.npy"))
        np.save(users, queries.user)
        self._ask(users=str(users), items=len(queries.texts), scores=str(scores))
        return np.load(scores)

    def close(self) -> None:
        """End the process."""
        self.process.communicate()
        self.folder.cleanup()

    def _ask(self, **asked: Any) -> dict[str, Any]:
        pipe_in, pipe_out = self.process.stdin, self.process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        print(json.dumps(asked), file=pipe_in, flush=True)
        answer = pipe_out.readline()
        if not answer:
            raise RuntimeError(
                f"expected an answer of {WORKER.name},"
                f" found that it ended with {self.process.wait()}"
            )
        return json.loads(answer)


def python() -> str:
    """Return the interpreter of the peer's environment, made if there is none."""
    interpreter = HOME / "bin" / "python"
    if not interpreter.exists():
        venv.create(HOME, with_pip=True)
        (HOME / ".gitignore").write_text("*\n", encoding="utf-8")
        for what in ([TORCH], [RECTOOLS, TORCH]):
            subprocess.run(
                [str(interpreter), "-m", "pip", "install", "--quiet", *what],
                check=True,
                stdout=sys.stderr,
            )
    return str(interpreter)


def run(arguments: list[str]) -> dict[str, Any]:
    """Return the trials with their curves, the best one, and the seconds to its best
    validation nDCG@10.
    """
    chosen = _parser().parse_args(arguments)
    benchmark = read(chosen.set, data.folder(chosen.data))
    trials = [curve(settings, benchmark.tune, chosen.seconds) for settings in SETTINGS]
    best = max(trials, key=lambda trial: trial["value"])
    found: dict[str, list[NDArray[np.int64]]] = {view.name: [] for view in benchmark.report.views}
    for seed in range(chosen.seeds):
        model = SASRec(best["settings"], benchmark.report.train, seed)
        seconds = model.train(best["epochs"])
        for view, rows in slates(model, benchmark.report).items():
            found[view].append(rows)
        model.close()
        _print_progress(f"seed {seed}: {best['epochs']} epochs in {seconds:.0f} s")
    path = HOME / f"{chosen.set}.npz"
    arrays: dict[str, Any] = {view: np.stack(rows) for view, rows in found.items()}
    np.savez(path, settings=json.dumps({**best["settings"], "epochs": best["epochs"]}), **arrays)
    return {"best": best, "seconds_to_best": best["seconds"], "trials": trials, "slates": str(path)}


def curve(settings: Mapping[str, Any], task: Task, limit: float) -> dict[str, Any]:
    """Return a setting's best validation nDCG, its epochs and seconds of training until then,
    and the whole curve.
    """
    model, spent = SASRec(settings, task.train, 0), 0.0
    values: list[float] = []
    seconds: list[float] = []
    main = replace(task, views=[task.main])
    while (
        len(values) < MOST_EPOCHS
        and spent < limit
        and len(values) - int(np.argmax([*values, 0.0])) <= PATIENCE
    ):
        spent += model.train(1)
        rows = slates(model, main)[task.main.name]
        values.append(
            float(metrics.per_user(rows.tolist(), task.main.relevant, K)[f"ndcg@{K}"].mean())
        )
        seconds.append(spent)
        _print_progress(
            f"{dict(settings)}: epoch {len(values)}, {spent:.0f} s,"
            f" validation ndcg@{K} {values[-1]:.4f}"
        )
    model.close()
    best = int(np.argmax(values))
    return {
        "settings": dict(settings),
        "value": values[best],
        "epochs": best + 1,
        "seconds": seconds[best],
        "curve": list(zip(seconds, values, strict=True)),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench sasrec")
    parser.add_argument("--data")
    parser.add_argument("--set", default="online_retail")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=300.0)
    return parser


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
