"""The demo: a loop that learns, with real processes and simulated people, and what was measured.

    data -> train -> quantize -> replay -> night 1 -> retrain -> ship -> night 2 -> ... -> report

Each night new people visit devices that take every release; the same people visit controls that
stay on the first one.
"""

from __future__ import annotations

import json
import platform
import secrets
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sanderling.runtime.clock import SystemClock
from sanderling.tables.event_log import ReadOptions
from sanderling_quantize.build_bundle import BuildResult, build
from sanderling_quantize.encoders.build_encoder import Encoding
from sanderling_quantize.gate import GateError, Thresholds
from sanderling_quantize.gate import report as gate_report
from sanderling_trainer.data import movielens
from sanderling_trainer.data.files import Source
from sanderling_trainer.demo import night as nights
from sanderling_trainer.demo.fleet import Fleet
from sanderling_trainer.demo.people import REPLAYED, PeopleSettings, World, make_world
from sanderling_trainer.demo.replay import replay_release
from sanderling_trainer.demo.stages import Stages
from sanderling_trainer.evaluation.simulators.population import DAY
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.event_log.reader import read_segments
from sanderling_trainer.jobs.retrain import retrain
from sanderling_trainer.jobs.retrain_options import RetrainOptions
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.train import train
from sanderling_trainer.policy.train_options import SETTINGS
from sanderling_trainer.releases.create import create_repository
from sanderling_trainer.releases.keys import KeyFolder
from sanderling_trainer.releases.repository import ReleaseRepository
from sanderling_trainer.report.collect import Sources, collect
from sanderling_trainer.report.demo_summary import table, verdict
from sanderling_trainer.report.page import write_page

APP = "demo"
OWN_FOLDERS = (
    "checkpoint",
    "retrained",
    "tables",
    "nights",
    "releases",
    "repository",
    "keys",
    "root-keys",
    "events",
    "devices",
    "logs",
)
# The whole language model in int8: nothing is distilled, which would take longest of all.
QUICK_ENCODING = Encoding("base")

# The demo also runs on machines that do other work: that must not end it. The projection of texts
# is refitted for newcomers and enlarges what int8 rounds: .992 was measured.
PATIENT = replace(Thresholds.of("base"), latency=5.0, new_item=0.98)


@dataclass(frozen=True)
class DemoSettings:
    """What can be varied."""

    collector_down_s: float = 0.0
    """How long the collector is down while devices upload the first night."""

    kill_device: bool = False
    """Whether a process of devices is killed in the first night and started again."""

    config: Config = field(default_factory=Config)
    choose: Collection[str] = SETTINGS
    """The settings that `train` chooses by the log."""

    people: PeopleSettings = field(default_factory=PeopleSettings)
    encoding: Encoding = QUICK_ENCODING
    thresholds: Thresholds = PATIENT
    """Of the bundle's gate."""


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
        self.summary: dict[str, Any] = {"nights": [], "updates": []}
        self._stages = Stages(on_stage)

    def run(
        self,
        items: Source | None = None,
        interactions: Source | None = None,
        options: ReadOptions | None = None,
    ) -> DemoResult:
        """Run every stage on these tables, or on MovieLens-100K where none are given."""
        self._clear()
        with self._stages.stage("data"):
            self._world = self._make_world(items, interactions, options)
        with self._stages.stage("train"):
            self._train()
        with self._stages.stage("quantize"):
            first = self._build(self.out / "checkpoint", 1)
        with self._stages.stage("replay"):
            self._replay(first)
        self._checkpoint = self.out / "checkpoint"
        with self._fleet(first) as fleet:
            for night in range(self._world.nights):
                if night:
                    self._learn(fleet, night)
                with self._stages.stage(f"night {night + 1}"):
                    self._live(fleet, night)
            with self._stages.stage("report"):
                self._account(fleet)
        return self._finish()

    def _make_world(
        self, items: Source | None, interactions: Source | None, options: ReadOptions | None
    ) -> World:
        name, licence = str(interactions), "your own"
        if items is None or interactions is None:
            items, interactions = movielens.load()
            name, licence = "MovieLens-100K", movielens.LICENCE
        (self.out / "tables").mkdir()
        world = make_world(
            items,
            interactions,
            self.out / "tables",
            self.settings.people,
            SystemClock().wall_ms() // (1000 * DAY),
            options,
        )
        world.write_interactions(self._interactions)
        population = world.population
        self.summary["data"] = {
            "name": name,
            "licence": licence,
            "people": len(world),
            "users": len(np.unique(world.log.user)),
            "interactions": len(world.log),
            "items": population.born(0),
            "newcomers": population.items - population.born(0),
        }
        self._stages.outcome = (
            f"{len(world)} simulated people, fitted to users of {name};"
            f" {len(world.log)} likes of its other users"
        )
        return world

    def _train(self) -> None:
        # Not fitted on the part held out, which release 1 is replayed on.
        trained = train(
            self._world.catalog,
            self._world.log,
            self.out / "checkpoint",
            self.settings.config,
            app=APP,
            holdout=REPLAYED,
            choose=self.settings.choose,
            refit=False,
        )
        for name, seconds in trained.seconds.items():
            self._stages.seconds[f"train: {name}"] = seconds
        ranking = trained.metrics["ranking"]
        self.summary["ranking"] = ranking
        self.summary["learning"] = {"warm_start": trained.metrics["warm_start"]}
        values = [f"{row['name']} {row['ndcg@10']['value']:.4f}" for row in ranking[0]["models"]]
        self._stages.outcome = f"nDCG@10, {ranking[0]['protocol']}: " + ", ".join(values)

    def _build(
        self, checkpoint: Path, release: int, previous: BuildResult | None = None
    ) -> BuildResult:
        """Build a release's bundle, with the encoder of the previous one if it is given."""
        earlier = previous.folder if previous else None
        built = build(
            checkpoint,
            self.out / "releases" / str(release),
            encoding=self.settings.encoding,
            thresholds=self.settings.thresholds,
            encoder_of=earlier,
            previous=earlier,
        )
        self._bundle = built
        files = {name: entry.length for name, entry in built.manifest.files.items()}
        total = sum(files.values())
        self.summary["bundle"] = {"bytes": total, "files": files}
        if previous is None:
            weights = checkpoint / "encoder" / "model.safetensors"
            self.summary["quantize"] = {
                "checks": gate_report(built.rows),
                "bytes_float": weights.stat().st_size,
                "bytes_int8": files["encoder.onnx"],
            }
        self._stages.outcome = (
            f"release {release}, {total / 1e6:.1f} MB, passed {len(built.rows)} checks of the gate"
        )
        return built

    def _replay(self, first: BuildResult) -> None:
        replayed = replay_release(self._world, first.folder, self.settings.config)
        self.summary["replay"] = replayed
        rates = ", ".join(f"{arm['name']} {arm['ctr']:.1%}" for arm in replayed["arms"])
        self._stages.outcome = f"real histories of {replayed['users']} users, clicked: {rates}"

    @contextmanager
    def _fleet(self, first: BuildResult) -> Iterator[Fleet]:
        store = LocalObjectStore(self.out / "repository")
        keys = KeyFolder(self.out / "keys")
        # Nobody will sign a second root of a demo.
        root_keys = KeyFolder(self.out / "root-keys", cache(secrets.token_urlsafe))
        create_repository(store, keys, root_keys)
        self._releases = ReleaseRepository(store, keys)
        self._releases.publish(first.folder)
        fleet = Fleet(self.out, first.folder, self._world)
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.stop()

    def _live(self, fleet: Fleet, night: int) -> None:
        """Let everybody visit, and deliver the events to the collector."""
        is_first = night == 0
        fleet.live(night, kill=is_first and self.settings.kill_device)
        fleet.flush(self.settings.collector_down_s if is_first else 0.0)

        ours, never = (
            nights.tally(self._world, night, journals) for journals in fleet.journals(night)
        )
        rng = np.random.default_rng([self.settings.config.seed, night])
        row = nights.compare(ours, never, rng)
        self.summary["nights"].append({"night": night + 1, **row})
        self._stages.outcome = (
            f"{row['ours']['clicks']['value']:.2f} clicks a slate,"
            f" never retrained {row['never']['clicks']['value']:.2f}; of the best possible"
            f" {row['ours']['share']['value']:.0%} and {row['never']['share']['value']:.0%}"
        )

    def _learn(self, fleet: Fleet, night: int) -> None:
        """Retrain for a night, and ship what the release gate lets through."""
        items = self.out / "tables" / f"items-{night + 1}.parquet"
        self._world.write_items(night, items)
        checkpoint = self.out / "retrained" / f"night-{night}"
        checkpoint.parent.mkdir(exist_ok=True)
        with self._stages.stage(f"retrain {night}"):
            done = retrain(
                str(self.out / "events"),
                self._checkpoint,
                checkpoint,
                RetrainOptions(
                    seed=self.settings.config.seed, items=items, interactions=self._interactions
                ),
            )
            gate = {
                "verdict": done.verdict,
                "sentence": done.metrics.get("sentence", "; ".join(done.reasons)),
                "is_shipped": False,
            }
            self.summary["nights"][-1]["gate"] = gate
            self._stages.outcome = f"{gate['verdict']}: {gate['sentence']}"
        if done.written:
            with self._stages.stage(f"ship {night}"):
                self._ship(fleet, done.release, checkpoint, gate)

    def _ship(self, fleet: Fleet, release: int, checkpoint: Path, gate: dict[str, Any]) -> None:
        """Build and publish a release; devices take it. A fleet this small takes a canary whole."""
        try:
            built = self._build(checkpoint, release, self._bundle)
        except GateError as error:
            gate["sentence"] += f" But {error}."
            self._stages.outcome = str(error)
            return
        self._releases.publish(built.folder)
        updates = fleet.update()
        self._checkpoint = checkpoint
        gate["is_shipped"] = True
        self.summary["updates"] += updates
        updated = sum(update["to"] == release for update in updates)
        slowest = max(update["seconds"] for update in updates)
        self._stages.outcome = (
            f"{updated} of {len(updates)} devices took release {release},"
            f" in at most {slowest:.1f} s"
        )

    def _account(self, fleet: Fleet) -> None:
        journals = [
            path for night in range(self._world.nights) for path in fleet.journals(night)[0]
        ]
        self.summary["latency"] = nights.latency(journals)
        events = fleet.account(read_segments(str(self.out / "events")))
        self.summary["events"] = events
        self._stages.outcome = (
            f"{events['acknowledged']} events acknowledged, {events['duplicates']} sent twice,"
            f" {events['lost']} lost"
        )

    def _finish(self) -> DemoResult:
        total = self._stages.total
        self.summary["seconds"] = {**self._stages.seconds, "all": total}
        self.summary["machine"] = {
            "python": platform.python_version(),
            "system": platform.platform(),
        }
        self.summary["verdict"] = verdict(self.summary)
        text = json.dumps(self.summary, indent=1) + "\n"
        (self.out / "summary.json").write_text(text, encoding="utf-8")
        page = self.out / "report.html"
        write_page(collect(self._sources()), page)
        last_line = f"the demo took {total:.0f} s; the report is {page}"
        return DemoResult(self.summary, f"{table(self.summary)}\n{last_line}")

    def _sources(self) -> Sources:
        """Return what the report shows: the run's own events, checkpoints and last two bundles."""
        candidates = [
            self.out / "retrained" / f"night-{night}" for night in range(1, self._world.nights)
        ]
        written = [folder for folder in candidates if (folder / "metrics.json").exists()]
        releases = sorted((self.out / "releases").iterdir(), key=lambda folder: int(folder.name))
        bundles = [folder for folder in releases if (folder / "manifest.json").exists()]
        return Sources(
            str(self.out / "events"),
            [self.out / "checkpoint", *written],
            bundles[-2:],
            self.summary,
        )

    @property
    def _interactions(self) -> Path:
        """What release 1 learned from, beside which the devices' histories teach."""
        return self.out / "tables" / "interactions.parquet"

    def _clear(self) -> None:
        """Remove an earlier run's folders; what else lies in `out` is left alone."""
        self.out.mkdir(parents=True, exist_ok=True)
        for name in OWN_FOLDERS:
            shutil.rmtree(self.out / name, ignore_errors=True)
