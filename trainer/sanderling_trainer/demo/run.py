"""The demo: the whole circle on real data, with real processes, and a summary of what was seen.

    data -> train -> quantize -> devices on slice 1 -> retrain -> ship -> devices on slice 2 -> report

The log's earliest 80 % of time trains; the next 10 % is slice 1, the last 10 % slice 2. Refuses to judge kindly: the
summary holds what was measured.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
    Catalogue,
    Interactions,
    read_catalogue,
    read_interactions,
)
from sanderling_trainer.data.time_split import quantile
from sanderling_trainer.demo import arms as replays
from sanderling_trainer.demo.fleet import Fleet
from sanderling_trainer.demo.report import table, verdict, write_report
from sanderling_trainer.evaluation.trajectory_replay import Trajectory, journeys
from sanderling_trainer.event_log.reader import read_segments
from sanderling_trainer.jobs.retrain import retrain
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.train import train

APP = "demo"
DEFINITION = (
    "At each step of a user's later history the policy shows 10 items that the user has not had; an item that the "
    "user liked at that step or later in the slice counts as clicked. Clicks are replayed, not observed: what users "
    "would have done with other slates is not known."
)


@dataclass(frozen=True)
class Settings:
    """What can be varied: seconds without a collector, whether a device is killed, and how the policy is learned."""

    collector_down_s: float = 0.0
    kill_device: bool = False
    config: Config = field(default_factory=Config)
    encoding: Encoding = field(default_factory=Encoding)
    thresholds: Thresholds | None = None


@dataclass(frozen=True)
class Finished:
    """The summary, and its table for the terminal."""

    summary: dict[str, Any]
    text: str


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Demo:
    """One run of the circle in the folder `out`, which it replaces."""

    def __init__(
        self, out: Path, settings: Settings, note: Callable[[str], None] = _to_stderr
    ) -> None:
        self.out, self.settings = out, settings
        self._note = note
        self.seconds: dict[str, float] = {}
        self.summary: dict[str, Any] = {}

    def run(self, items: Path | None = None, interactions: Path | None = None) -> Finished:
        """Run every stage; each ends with one line, handed to `note`."""
        self._clear()
        with self._stage("data"):
            catalogue, log = self._data(items, interactions)
        self.splits = [quantile(log.time, share) for share in (0.8, 0.9, 1.0)]
        with self._stage("train"):
            self._train(catalogue, log)
        with self._stage("quantize"):
            first = self._build(self.out / "checkpoint", 1)
        with self._fleet(first) as fleet:
            ways = [
                journeys(log, *pair) for pair in zip(self.splits, self.splits[1:], strict=False)
            ]
            with self._stage("devices"):
                fleet.replay(
                    1,
                    replays.plain(ways[0], catalogue, log),
                    self.settings.collector_down_s,
                    self.settings.kill_device,
                )
                self._say(
                    f"{sum(len(way.later) for way in ways[0])} decisions along the ways of {len(ways[0])} users"
                )
            with self._stage("retrain"):
                self._retrain(fleet)
            with self._stage("ship"):
                self._ship(fleet)
            with self._stage("devices again"):
                fleet.replay(2, replays.plain(ways[1], catalogue, log))
                self._say(
                    f"{sum(len(way.later) for way in ways[1])} decisions, by each of two releases"
                )
            with self._stage("report"):
                fleet.flush()
                self._judge(fleet, ways[1], catalogue, log)
        return self._finish()

    def _data(
        self, items: Path | None, interactions: Path | None
    ) -> tuple[Catalogue, Interactions]:
        own = items is not None and interactions is not None
        paths = (items, interactions) if own else movielens.load()
        catalogue = read_catalogue(paths[0])  # type: ignore[arg-type]
        log = read_interactions(paths[1], catalogue)  # type: ignore[arg-type]
        users = int(np.unique(log.user).size)
        self.summary["data"] = {
            "name": str(interactions) if own else "MovieLens-100K",
            "users": users,
            "items": len(catalogue),
            "interactions": len(log),
            "licence": "your own" if own else movielens.LICENCE,
        }
        self._say(f"{len(log)} events of {users} users on {len(catalogue)} items")
        return catalogue, log

    def _train(self, catalogue: Catalogue, log: Interactions) -> None:
        trained = train(
            catalogue, log, self.out / "checkpoint", self.settings.config, app=APP, holdout=0.2
        )
        self.seconds.update(
            {f"train: {name}": seconds for name, seconds in trained.seconds.items()}
        )
        self.summary["ranking"] = trained.metrics["ranking"]
        self.summary["learning"] = {
            name: trained.metrics[name] for name in ("warm_start", "policy_gradient")
        }
        folded = {
            model["name"]: model["ndcg@10"]["value"]
            for model in trained.metrics["ranking"][-1]["models"]
        }
        self._say(
            "nDCG@10, fold-in: "
            + ", ".join(f"{name} {value:.4f}" for name, value in folded.items())
        )

    def _build(self, checkpoint: Path, number: int, encoder_of: Path | None = None) -> BuildResult:
        built = build(
            checkpoint,
            self.out / "releases" / str(number),
            encoding=self.settings.encoding,
            thresholds=self.settings.thresholds,
            encoder_of=encoder_of,
            previous=encoder_of,
        )
        files = {name: entry.length for name, entry in built.manifest.files.items()}
        self.summary["bundle"] = {"bytes": sum(files.values()), "files": files}
        if encoder_of is None:
            weights = (checkpoint / "encoder" / "model.safetensors").stat().st_size
            self.summary["quantize"] = {
                "checks": gate_report(built.rows),
                "bytes_float": weights,
                "bytes_int8": files["encoder.onnx"],
            }
        self._say(
            f"release {number}, {sum(files.values()) / 1e6:.1f} MB, passed {len(built.rows)} checks of the gate"
        )
        return built

    @contextmanager
    def _fleet(self, first: BuildResult) -> Iterator[Fleet]:
        root = release_repository.create_repository(self.out / "repository", self.out / "keys")
        (self.out / "repository" / "root.json").write_bytes(root)
        release_repository.publish(first.folder, self.out / "repository", self.out / "keys")
        fleet = Fleet(self.out, first.folder)
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.stop()

    def _retrain(self, fleet: Fleet) -> None:
        fleet.flush()
        # The demo ships whatever the gate says, so that the swap is seen; the report says what the gate said.
        done = retrain(
            str(self.out / "events"),
            self.out / "checkpoint",
            self.out / "checkpoint-2",
            seed=self.settings.config.seed,
            ship_anyway=True,
        )
        self.summary["ope"] = done.metrics["ope"]
        self._say(
            f"learned from {done.metrics['policy_gradient']['decisions']} decisions,"
            f" dropped {done.metrics['log']['dropped']}; the release gate {'holds' if done.reasons else 'passes'} it"
        )

    def _ship(self, fleet: Fleet) -> None:
        second = self._build(self.out / "checkpoint-2", 2, encoder_of=self.out / "releases" / "1")
        release_repository.publish(second.folder, self.out / "repository", self.out / "keys")
        updates = fleet.update()
        self.summary["updates"] = updates
        slowest = max(update["seconds"] for update in updates)
        self._say(
            f"{sum(update['to'] == 2 for update in updates)} of {len(updates)} devices took release 2,"
            f" in at most {slowest:.1f} s"
        )

    def _judge(
        self, fleet: Fleet, ways: Sequence[Trajectory], catalogue: Catalogue, log: Interactions
    ) -> None:
        config = self.settings.config
        arms = replays.baselines(ways, log, self.splits[1], len(catalogue), config)
        arms += [
            replays.device_arm(f"release {number}", fleet.journals(number)) for number in (1, 2)
        ]
        self.summary["replay"] = {
            "definition": DEFINITION,
            "users": len(ways),
            **replays.compare(arms, config.seed),
        }
        self.summary["latency"] = replays.latency(
            [path for number in (1, 2) for path in fleet.journals(number)]
        )
        found = read_segments(str(self.out / "events"))
        self.summary["events"] = fleet.account(found)
        events = self.summary["events"]
        self._say(
            f"{events['acknowledged']} events acknowledged, {events['duplicates']} sent twice, {events['lost']} lost"
        )

    def _finish(self) -> Finished:
        self.summary["seconds"] = {
            **self.seconds,
            "all": sum(self.seconds[name] for name in self._stages),
        }
        self.summary["machine"] = {
            "python": platform.python_version(),
            "system": platform.platform(),
        }
        self.summary["verdict"] = verdict(self.summary)
        (self.out / "summary.json").write_text(
            json.dumps(self.summary, indent=1) + "\n", encoding="utf-8"
        )
        write_report(self.summary, self.out / "report.html")
        took = f"the circle took {self.summary['seconds']['all']:.0f} s; {self.out / 'report.html'} shows it"
        return Finished(self.summary, f"{table(self.summary)}\n{took}")

    def _clear(self) -> None:
        """Make the folder anew; what is not the demo's own is left alone."""
        self.out.mkdir(parents=True, exist_ok=True)
        for name in (
            "checkpoint",
            "checkpoint-2",
            "releases",
            "repository",
            "keys",
            "events",
            "devices",
            "logs",
        ):
            shutil.rmtree(self.out / name, ignore_errors=True)
        self._stages: list[str] = []

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start, self._line = time.perf_counter(), ""
        yield
        self.seconds[name] = time.perf_counter() - start
        self._stages.append(name)
        self._note(f"{name:<14}{self.seconds[name]:6.1f} s  {self._line}")

    def _say(self, line: str) -> None:
        self._line = line
