"""The demo: the full loop on real data with real processes, and a summary of what was measured.

    data -> train -> quantize -> devices on slice 1 -> retrain -> ship -> devices on slice 2
    -> report

The earliest 80 % of the log's time span trains, the next 10 % is slice 1, the last 10 % slice 2.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sanderling_quantize.build_bundle import BuildResult, build
from sanderling_quantize.encoders.build_encoder import Encoding
from sanderling_quantize.gate import Thresholds
from sanderling_quantize.gate import report as gate_report
from sanderling_trainer import release_repository
from sanderling_trainer.data import movielens
from sanderling_trainer.data.tables import (
    Catalog,
    Interactions,
    read_catalog,
    read_interactions,
)
from sanderling_trainer.data.time_split import quantile
from sanderling_trainer.demo import arms
from sanderling_trainer.demo.fleet import Fleet
from sanderling_trainer.demo.report import table, verdict, write_report
from sanderling_trainer.evaluation.trajectory_replay import Trajectory, trajectories
from sanderling_trainer.event_log.reader import read_segments
from sanderling_trainer.jobs.night_inputs import RetrainOptions
from sanderling_trainer.jobs.retrain import retrain
from sanderling_trainer.policy.choose_settings import SETTINGS
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.train import train

APP = "demo"
DEFINITION = (
    "At each step of a user's later history the policy shows 10 items that the user has not had;"
    " an item that the user liked at that step or later in the slice counts as clicked. Clicks are"
    " replayed, not observed: what users would have done with other slates is not known."
)
OWN_FOLDERS = (
    "checkpoint",
    "checkpoint-2",
    "releases",
    "repository",
    "keys",
    "events",
    "devices",
    "logs",
)


@dataclass(frozen=True)
class DemoSettings:
    """What can be varied."""

    collector_down_s: float = 0.0
    """How long the collector is down while devices replay slice 1."""

    kill_device: bool = False
    """Whether a device is killed and started again on slice 1."""

    config: Config = field(default_factory=Config)
    choose: Collection[str] = SETTINGS
    """The settings that `train` chooses by the log."""

    encoding: Encoding = field(default_factory=Encoding)
    thresholds: Thresholds | None = None
    """Of the bundle's gate; None for the defaults."""


@dataclass(frozen=True)
class DemoResult:
    """The summary, and its table for the terminal."""

    summary: dict[str, Any]
    text: str


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Demo:
    """One run of the full loop in the folder `out`, whose earlier results it replaces."""

    def __init__(
        self, out: Path, settings: DemoSettings, on_stage: Callable[[str], None] = _to_stderr
    ) -> None:
        """`on_stage` gets one line after each stage."""
        self.out = out
        self.settings = settings
        self.seconds: dict[str, float] = {}
        self.summary: dict[str, Any] = {}
        self._on_stage = on_stage
        self._stages: list[str] = []
        self._outcome = ""

    def run(self, items: Path | None = None, interactions: Path | None = None) -> DemoResult:
        """Run every stage on these tables, or on MovieLens-100K where none are given."""
        self._clear()
        with self._stage("data"):
            catalog, log = self._load(items, interactions)
        self._splits = [quantile(log.time, share) for share in (0.8, 0.9, 1.0)]
        slice_1, slice_2 = (
            trajectories(log, start, stop)
            for start, stop in zip(self._splits, self._splits[1:], strict=False)
        )
        with self._stage("train"):
            self._train(catalog, log)
        with self._stage("quantize"):
            first = self._build(self.out / "checkpoint", 1)
        with self._fleet(first) as fleet:
            with self._stage("devices"):
                fleet.replay(
                    1,
                    arms.device_trajectories(slice_1, catalog, log),
                    self.settings.collector_down_s,
                    self.settings.kill_device,
                )
                self._outcome = (
                    f"{_decisions(slice_1)} decisions on the trajectories of {len(slice_1)} users"
                )
            with self._stage("retrain"):
                self._retrain(fleet)
            with self._stage("ship"):
                self._ship(fleet)
            with self._stage("devices again"):
                fleet.replay(2, arms.device_trajectories(slice_2, catalog, log))
                self._outcome = f"{_decisions(slice_2)} decisions by each of two releases"
            with self._stage("report"):
                fleet.flush()
                self._compare(fleet, slice_2, catalog, log)
        return self._finish()

    def _load(self, items: Path | None, interactions: Path | None) -> tuple[Catalog, Interactions]:
        if items is not None and interactions is not None:
            name = str(interactions)
            licence = "your own"
        else:
            items, interactions = movielens.load()
            name = "MovieLens-100K"
            licence = movielens.LICENCE
        catalog = read_catalog(items)
        log = read_interactions(interactions, catalog)
        users = int(np.unique(log.user).size)
        self.summary["data"] = {
            "name": name,
            "users": users,
            "items": len(catalog),
            "interactions": len(log),
            "licence": licence,
        }
        self._outcome = f"{len(log)} events of {users} users on {len(catalog)} items"
        return catalog, log

    def _train(self, catalog: Catalog, log: Interactions) -> None:
        # Not fitted on the part held out, which devices replay.
        trained = train(
            catalog,
            log,
            self.out / "checkpoint",
            self.settings.config,
            app=APP,
            holdout=0.2,
            choose=self.settings.choose,
            refit=False,
        )
        for name, seconds in trained.seconds.items():
            self.seconds[f"train: {name}"] = seconds
        ranking = trained.metrics["ranking"]
        self.summary["ranking"] = ranking
        self.summary["learning"] = {"warm_start": trained.metrics["warm_start"]}
        fold_in = next(table for table in ranking if table["protocol"] == "fold-in")
        values = [f"{model['name']} {model['ndcg@10']['value']:.4f}" for model in fold_in["models"]]
        self._outcome = "nDCG@10, fold-in: " + ", ".join(values)

    def _build(self, checkpoint: Path, release: int, encoder_of: Path | None = None) -> BuildResult:
        """Build a release's bundle, with the encoder of an earlier one if it is given."""
        built = build(
            checkpoint,
            self.out / "releases" / str(release),
            encoding=self.settings.encoding,
            thresholds=self.settings.thresholds,
            encoder_of=encoder_of,
            previous=encoder_of,
        )
        files = {name: entry.length for name, entry in built.manifest.files.items()}
        total = sum(files.values())
        self.summary["bundle"] = {"bytes": total, "files": files}
        if encoder_of is None:
            weights = checkpoint / "encoder" / "model.safetensors"
            self.summary["quantize"] = {
                "checks": gate_report(built.rows),
                "bytes_float": weights.stat().st_size,
                "bytes_int8": files["encoder.onnx"],
            }
        self._outcome = (
            f"release {release}, {total / 1e6:.1f} MB, passed {len(built.rows)} checks of the gate"
        )
        return built

    @contextmanager
    def _fleet(self, first: BuildResult) -> Iterator[Fleet]:
        repository = self.out / "repository"
        keys = self.out / "keys"
        root = release_repository.create_repository(repository, keys)
        (repository / "root.json").write_bytes(root)
        release_repository.publish(first.folder, repository, keys)
        fleet = Fleet(self.out, first.folder)
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.stop()

    def _retrain(self, fleet: Fleet) -> None:
        fleet.flush()
        # The demo ships whatever the release gate says, to show the swap; the report has both.
        done = retrain(
            str(self.out / "events"),
            self.out / "checkpoint",
            self.out / "checkpoint-2",
            RetrainOptions(seed=self.settings.config.seed, ship_anyway=True),
        )
        self.summary["ope"] = done.metrics["ope"]
        self._outcome = (
            f"learned from {done.metrics['learning']['decisions']} decisions,"
            f" dropped {done.metrics['log']['dropped']};"
            f" the release gate's verdict: {done.verdict}"
        )

    def _ship(self, fleet: Fleet) -> None:
        second = self._build(self.out / "checkpoint-2", 2, encoder_of=self.out / "releases" / "1")
        release_repository.publish(second.folder, self.out / "repository", self.out / "keys")
        updates = fleet.update()
        self.summary["updates"] = updates
        updated = sum(update["to"] == 2 for update in updates)
        slowest = max(update["seconds"] for update in updates)
        self._outcome = (
            f"{updated} of {len(updates)} devices took release 2, in at most {slowest:.1f} s"
        )

    def _compare(
        self, fleet: Fleet, replayed: Sequence[Trajectory], catalog: Catalog, log: Interactions
    ) -> None:
        config = self.settings.config
        journals = {release: fleet.journals(release) for release in (1, 2)}
        compared = arms.baseline_arms(replayed, log, self._splits[1], len(catalog), config)
        for release, paths in journals.items():
            compared.append(arms.device_arm(f"release {release}", paths))
        self.summary["replay"] = {
            "definition": DEFINITION,
            "users": len(replayed),
            **arms.compare(compared, config.seed),
        }
        self.summary["latency"] = arms.latency([*journals[1], *journals[2]])
        events = fleet.account(read_segments(str(self.out / "events")))
        self.summary["events"] = events
        self._outcome = (
            f"{events['acknowledged']} events acknowledged, {events['duplicates']} sent twice,"
            f" {events['lost']} lost"
        )

    def _finish(self) -> DemoResult:
        total = sum(self.seconds[name] for name in self._stages)
        self.summary["seconds"] = {**self.seconds, "all": total}
        self.summary["machine"] = {
            "python": platform.python_version(),
            "system": platform.platform(),
        }
        self.summary["verdict"] = verdict(self.summary)
        text = json.dumps(self.summary, indent=1) + "\n"
        (self.out / "summary.json").write_text(text, encoding="utf-8")
        page = self.out / "report.html"
        write_report(self.summary, page)
        last_line = f"the full loop took {total:.0f} s; the report is {page}"
        return DemoResult(self.summary, f"{table(self.summary)}\n{last_line}")

    def _clear(self) -> None:
        """Remove an earlier run's folders; what else lies in `out` is left alone."""
        self.out.mkdir(parents=True, exist_ok=True)
        for name in OWN_FOLDERS:
            shutil.rmtree(self.out / name, ignore_errors=True)
        self._stages = []

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Time a stage, then pass on one line with the `_outcome` that it set."""
        self._outcome = ""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        self._stages.append(name)
        self._on_stage(f"{name:<14}{self.seconds[name]:6.1f} s  {self._outcome}")


def _decisions(replayed: Sequence[Trajectory]) -> int:
    return sum(len(trajectory.later) for trajectory in replayed)
