"""A tiny shop with a checkpoint, and devices whose events a retraining learns from."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sanderling.events import codec
from sanderling.events.schema import Event, Slot
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.data.tables import read_catalog
from sanderling_trainer.evaluation.ope import sequential_propensities
from sanderling_trainer.event_log import segment_format
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.jobs.retrain import RetrainResult, retrain
from sanderling_trainer.jobs.retrain_options import RetrainOptions
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.checkpoint import Checkpoint, CheckpointMetadata
from sanderling_trainer.policy.exposure import Exposure
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.language_model import LanguageModel
from sanderling_trainer.policy.model.network import PolicyNetwork
from tests.support.fakes import EventFactory, FakeClock
from tests.support.worlds import COLOURS, THINGS, write_language_model

ITEMS = 12
KINDS = ["view", "click", "purchase"]
SLOTS = 3
CONFIG = Config(dim=8, state=8, hidden=8, epochs=2, policy_epochs=1, pool=8, slate=SLOTS)
_EXACT = sequential_propensities(np.arange(SLOTS)[None], SLOTS, CONFIG.pool, CONFIG.epsilon)
GREEDY = list(zip(_EXACT.conditional[0].tolist(), _EXACT.marginal[0].tolist(), strict=True))
"""Conditional and marginal propensities of a slate that shows the best items in order."""

SHIPS = RetrainOptions(ship_anyway=True)


def shop_rows(items: int = ITEMS) -> list[dict[str, str]]:
    """Return the rows of an items table."""
    return [
        {"item_id": f"i{at}", "text": f"{THINGS[at % 10]} number {at}", "colour": COLOURS[at % 2]}
        for at in range(items)
    ]


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


class Shop:
    """Writes a checkpoint of release 1, and events of devices day by day."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.store = LocalObjectStore(folder / "events")
        self.devices = [Device(number) for number in range(6)]
        self.active = folder / "active"
        if not self.active.exists():
            self._write_checkpoint()

    @staticmethod
    def opened(folder: Path) -> Shop:
        """Return a copied shop, whose devices have shown one day's slates."""
        shop = Shop(folder)
        for device in shop.devices:
            device.slates(30, shop.clock)
        shop.clock.advance(DAY)
        return shop

    def _write_checkpoint(self) -> None:
        items = write_rows(self.folder / "items.parquet", shop_rows())
        catalog = read_catalog(items)
        write_language_model(self.active / "encoder")
        texts = LanguageModel(str(self.active / "encoder")).encode(catalog.texts)

        torch.manual_seed(0)
        network = PolicyNetwork(CONFIG, torch.from_numpy(texts), torch.empty(0, 32), len(KINDS))
        with torch.no_grad():
            network.residual.normal_()
            network.bias.normal_()
        end = self.clock.wall_ms() // 1000
        rows = np.arange(ITEMS)
        popularity = PopularityHistory.of(rows, rows, np.full(ITEMS, end - DAY), ITEMS)
        network.set_popularity_day(popularity, end // DAY)
        metadata = CheckpointMetadata(
            app="shop",
            release=1,
            parent=0,
            kinds=KINDS,
            repeats=True,
            log_from=end - 30 * DAY,
            log_to=end - 3600,
            data_sha256="0" * 64,
        )
        made = Checkpoint(
            network, catalog, CONFIG, metadata, popularity, Exposure.of_log(rows, ITEMS)
        )
        checkpoint.save(self.active, made, {})

    def day(self, slates: int = 30) -> None:
        """Let every device show so many slates, and let the day pass."""
        for device in self.devices:
            self.upload(device.slates(slates, self.clock))
        self.clock.advance(DAY)

    def table(self, rows: list[dict[str, str]]) -> Path:
        """Write an items table."""
        return write_rows(self.folder / "new-items.parquet", rows)

    def upload(self, events: list[Event]) -> None:
        """Store events as a collector does that receives them now."""
        now = self.clock.wall_ms()
        lines = [segment_format.encode_line(codec.encode(event), now, now) for event in events]
        self.store.put(
            segment_format.new_file_name("segments", self.clock), segment_format.pack(lines)
        )

    def night(
        self,
        out: str = "next",
        options: RetrainOptions = SHIPS,
        active: Path | None = None,
    ) -> RetrainResult:
        """Retrain to a folder beside the active checkpoint."""
        return retrain(
            str(self.store.root), active or self.active, self.folder / out, options, self.clock
        )


class Device:
    """One user on one install, whose state each clicked item changes."""

    def __init__(self, number: int) -> None:
        self.install = f"{number + 1:032x}"
        self.make = EventFactory(self.install, 10**6 * (number + 1))
        self.rng = random.Random(number)
        self.seq = 0
        self.checksum = NO_EVENTS
        self.steps = 0

    def slates(self, count: int, clock: FakeClock, items: int = ITEMS) -> list[Event]:
        """Return decisions with their outcomes; of each slate the first slot is clicked."""
        return [event for _ in range(count) for event in self._slate(clock, items)]

    def observed(self, item: str, clock: FakeClock) -> Event:
        """Return a purchase."""
        self._step(item, "purchase")
        return self.make.observation(**self._next(clock), item=item)

    def _slate(self, clock: FakeClock, items: int) -> list[Event]:
        shown = self.rng.sample(range(items), SLOTS)
        decision = self.make.decision(
            **self._next(clock),
            release=1,
            pool=8,
            eligible=items,
            slate=[Slot(f"i{item}", rank, False, *GREEDY[rank]) for rank, item in enumerate(shown)],
            state_checksum=self.checksum,
            state_events=self.steps,
        )
        outcomes = [
            self.make.outcome(
                decision,
                slot,
                1.0 if slot == 0 else -1.0,
                kind="click" if slot == 0 else "skip",
                updates_state=slot == 0,
                **self._next(clock),
            )
            for slot in range(SLOTS)
        ]
        self._step(f"i{shown[0]}", "click")
        return [decision, *outcomes]

    def _next(self, clock: FakeClock) -> dict:
        self.seq += 1
        reading = EventFactory().observation().clock
        return {"seq": self.seq, "clock": type(reading)(clock.wall_ms(), 5_000, "b" * 32)}

    def _step(self, item: str, kind: str) -> None:
        self.checksum = next_checksum(self.checksum, item, kind)
        self.steps += 1


def files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file of a checkpoint but its language model."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "encoder" not in path.parts
    }
