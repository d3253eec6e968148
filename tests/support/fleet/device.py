"""A simulated device: an engine on a failing disk with a wrong clock, and an app acting at random.

The ledger records which events the server must receive for the app's calls.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import apsw
import pytest

from sanderling import Engine, Receipt, Slate, SlateItem
from sanderling.errors import StorageError
from sanderling.runtime.clock import Entropy
from tests.support.engines import active_bundle_of, wait_for_confirmation
from tests.support.fleet import catalog_actions
from tests.support.fleet.catalog_model import CatalogModel
from tests.support.fleet.clock import DAY_S, OFFSETS_S, YEAR_S, DeviceClock
from tests.support.fleet.disk import SimulatedDisk, damage_row
from tests.support.fleet.ledger import Entry, Ledger, noisy_key
from tests.support.fleet.network import Connection, Network
from tests.support.fleet.releases import MAX_ITEMS, SHIPPED_RELEASE, releases
from tests.support.fleet.simulation import Simulation

USERS = ["anna", "ben", "carla"]
LENGTHS = [1, 2, 3, 4, 5, 6, 15]
VALUES = [1.0, 0.5, -1.0]
# What the outbox answers when a write was not confirmed in time: the event may still be stored.
UNCONFIRMED = "not known to be on disk"
CONTEXTS = [None, None, "", "rainy sunday evening", "on the train", "half \ud800"]


class Device:
    """One device. The keyword arguments replace its parts by broken ones (`mutants`).

    `entropy` makes the engine's random source for one run; `break_engine` is called with each
    engine after it was opened.
    """

    def __init__(
        self,
        simulation: Simulation,
        network: Network,
        name: str,
        folder: Path,
        *,
        entropy: Callable[[random.Random], Entropy] = lambda rng: rng.randbytes,
        break_engine: Callable[[Engine], None] = lambda engine: None,
        connection: type[Connection] = Connection,
    ) -> None:
        self.simulation = simulation
        self.name = name
        self.folder = folder
        self.break_engine = break_engine
        self._make_entropy = entropy
        self._entropy = simulation.random_stream(f"{name}/entropy")

        # Each seed stands for one course: keep the order of the draws.
        self.rng = simulation.random_stream(name)
        self.privacy = self.rng.choice([0.5, 2.0]) if self.rng.random() < 0.35 else None
        self.window_s = None if self.privacy else self.rng.choice([None, 600.0, DAY_S])
        self.adapt = self.privacy is None and self.rng.random() < 0.3
        changes_items = self.rng.random() < 0.5
        changes_release = self.rng.random() < 0.5
        self.pseudonym_days = self.rng.choice([None, None, 2.0])
        unsteady = self.rng.random() < 0.4
        sheds = self.rng.random() < 0.15
        self.outbox_bytes = 128 * 1024 if sheds else 2**24
        self.ledger = Ledger(
            name,
            sheds=sheds,
            has_steady_clock=not unsteady,
            privacy=self.privacy or 0.0,
            shares_context=self.rng.random() < 0.4,
        )
        self.catalog = CatalogModel(releases())
        self.clock = DeviceClock(simulation, round(1000 * self.rng.choice(OFFSETS_S)))
        self.latest_ms = self.clock.wall_ms()
        folder.mkdir()
        self.disk = SimulatedDisk(folder, simulation.random_stream(f"{name}/disk"))
        self.connection = connection(network, name, self._has_crashed, self._crash_now)
        self.engine: Engine | None = None
        self.slates: list[Slate] = []
        self.decided_ms: dict[str, int] = {}
        self.tags = 0
        self._erasures = 0
        self.actions = self._actions(
            changes_items=changes_items,
            changes_release=changes_release,
            changes_clock=unsteady,
        )

    def _actions(
        self, *, changes_items: bool, changes_release: bool, changes_clock: bool
    ) -> dict[Callable[[], None], float]:
        """Return the actions of the app and the faults of the device, with their weights."""
        return {
            self.recommend: 6,
            self.reward: 7,
            self.observe: 3,
            self.step: 6,
            self.restart: 0.7,
            self.crash: 1,
            self.schedule_crash: 1,
            self.forget_user: 0.2,
            self.send_invalid_text: 0.2,
            self.fail_disk: 0.4,
            self.damage: 0.3,
            self.mark_seen: 4 if self.window_s else 0,
            self.change_clock: 0.8 if changes_clock else 0,
            partial(catalog_actions.upsert, self): 1.5 * changes_items,
            partial(catalog_actions.remove, self): changes_items,
            partial(catalog_actions.swap, self): 1.5 * changes_release,
            partial(catalog_actions.roll_back, self): 0.5 * changes_release,
        }

    # Called by the simulation

    def act(self) -> None:
        """Do one action at random, unless the device crashes before."""
        action = self.rng.choices(list(self.actions), list(self.actions.values()))[0]
        if self.engine is None:
            self.open()
        if not self._has_crashed():
            action()
        self.update_ledger()

    def open(self) -> None:
        entropy = self._make_entropy(self._entropy)
        with self.disk:
            self.engine = Engine.open(
                releases()[SHIPPED_RELEASE].folder,
                self.folder,
                transport=self.connection,
                window_s=self.window_s,
                adapt=self.adapt,
                privacy=self.privacy,
                share_context=self.ledger.shares_context,
                pseudonym_days=self.pseudonym_days,
                outbox_bytes=self.outbox_bytes,
                background=False,
                clock=self.clock,
                entropy=entropy,
            )
        # Otherwise it crashed when it opened the outbox, before it looked for releases.
        if not self._has_crashed():
            self.catalog.open(active_bundle_of(self.engine).owns_folder)
        self.connection.engine = self.engine
        self.break_engine(self.engine)
        self._erasures = 0
        self.simulation.record(self.name, "opens", self.engine.storage_fault)

    def update_ledger(self) -> None:
        """Update the ledger: what was written or erased, and whether the device crashed."""
        counters = self.engine.counters() if self.engine else {"outbox": None, "upload": None}
        if counters["upload"] and counters["upload"].erasures > self._erasures:
            self._erasures = counters["upload"].erasures
            self.simulation.record(self.name, "is erased")
            self.ledger.mark_erased()
        self.latest_ms = max(self.latest_ms, self.clock.wall_ms())
        if self._has_crashed():
            self._recover()
        self.simulation.advance(self.rng.uniform(0.001, 0.01))

    def _mark_written(self) -> None:
        """Note that everything is in the file after a step, unless the disk fails."""
        assert self.engine is not None
        outbox = self.engine.counters()["outbox"]
        if outbox and outbox.queued == 0 and not self._has_crashed() and self.disk.failing is None:
            self.ledger.mark_written()

    def _has_crashed(self) -> bool:
        return self.disk.image is not None

    def _crash_now(self) -> None:
        self.disk.power_cut = self.rng.random() < 0.5
        self.disk.take_image()

    def _recover(self) -> None:
        """Note a crash, and put the disk into the state that it left."""
        assert self.engine is not None
        self.simulation.record(self.name, "crashes", "power cut" if self.disk.power_cut else "kill")
        self.ledger.crash(self.disk.power_cut)
        self.disk.failing = None
        self.engine.close()
        self.disk.restore()
        self.engine = None
        self.slates = []
        if self.disk.power_cut:
            self.clock.boot = self.simulation.now

    def clear_faults(self) -> None:
        """Stop all faults; an unsteady clock is set to a time later than any that it has shown."""
        self.disk.crash_after = None
        self.disk.failing = None
        if self.engine is not None and self.engine.storage_fault:
            self.close()
        if not self.ledger.has_steady_clock:
            self.clock.frozen = None
            self.clock.offset = max(0, self.latest_ms - self.simulation.now)

    def upload_step(self) -> bool:
        """Upload one batch; return whether nothing is left."""
        if self.engine is None:
            self.open()
        assert self.engine is not None
        self.engine.step()
        self._mark_written()
        self.update_ledger()
        outbox = self.engine.counters()["outbox"]
        return bool(outbox) and outbox.queued == outbox.pending == 0

    def close(self) -> None:
        """Close the engine; what is queued is stored, unless the disk fails."""
        if self.engine is not None:
            self.engine.close()
            self.catalog.close()
            if self._has_crashed():
                self._recover()
                return
            if self.disk.failing is None and not self.cannot_store():
                self.ledger.mark_flushed()
            else:
                self.ledger.crash(power_cut=True)
                self.slates = []
            self.engine = None

    def cannot_store(self) -> bool:
        """Return whether the engine cannot store anything."""
        return self.engine is None or self.engine.storage_fault not in (
            None,
            "the engine is closed",
        )

    # Calls of the app

    def _tag(self, letter: str) -> str:
        self.tags += 1
        return f"{letter}-{self.name}-{self.tags}"

    def _add(
        self,
        kind: str,
        key: str,
        user: str,
        decision: str = "",
        slots: tuple[int, ...] = (),
        value: float = 0.0,
    ) -> Entry:
        now_ms = self.simulation.now
        entry = self.ledger.add(Entry(kind, key, user, now_ms, decision, slots, value))
        if self.engine is None or self.engine.storage_fault:
            entry.status = "erased"
        return entry

    def recommend(self, user: str = "") -> None:
        assert self.engine is not None
        user = user or self.rng.choice(USERS)
        context = self.rng.choice(CONTEXTS)
        excluded = self.rng.choice([[], [], self._random_items(), self.catalog.unchanged_items()])
        greedy = self.rng.random() < 0.1
        slate = self.engine.recommend(
            user, self.rng.choice(LENGTHS), context, excluded, greedy=greedy
        )
        wait_for_confirmation()
        self._add("decision", slate.decision, user)
        self.decided_ms[slate.decision] = self.clock.wall_ms()
        self.ledger.slates[slate.decision] = slate
        self.ledger.eligible[slate.decision] = self.catalog.eligible_items(excluded, context)
        if not self._has_crashed():
            self.catalog.serve()
        self.slates = [*self.slates[-5:], slate] if slate.items else self.slates
        shown = [(item.id, item.rank, item.propensity) for item in slate]
        self.simulation.record(self.name, "recommends", slate.decision, shown)

    def _random_items(self) -> list[str]:
        return [f"item-{self.rng.randrange(MAX_ITEMS)}" for _ in range(3)]

    def reward(self) -> None:
        if self.slates and self.privacy:
            self._reward_all(self.slates.pop(self.rng.randrange(len(self.slates))))
        elif self.slates:
            slate = self.rng.choice(self.slates)
            self._reward(slate, self.rng.choice(slate.items), self._tag("r"))

    def _reward(self, slate: Slate, item: SlateItem, tag: str) -> None:
        assert self.engine is not None
        value = self.rng.choice(VALUES)
        receipt = self.engine.reward(slate, item, value, tag)
        entry = self._add(
            "outcome", tag, slate.user, decision=slate.decision, slots=(item.slot,), value=value
        )
        self._receive(receipt, [entry])
        self.simulation.record(self.name, "rewards", tag, receipt)

    def _reward_all(self, slate: Slate) -> None:
        """Reward a whole slate in one call, as apps with `privacy` should."""
        assert self.engine is not None
        values = {item: self.rng.choice(VALUES) for item in slate}
        receipt = self.engine.reward_all(slate, values)
        entries = [
            self._add(
                "outcome",
                noisy_key(slate.decision, item.slot),
                slate.user,
                decision=slate.decision,
                slots=(item.slot,),
                value=value,
            )
            for item, value in values.items()
        ]
        self._receive(receipt, entries)
        self.simulation.record(self.name, "rewards all", slate.decision, receipt)

    def _receive(self, receipt: Receipt, entries: list[Entry]) -> None:
        """Note what a receipt promises: a stored reward is durable, and so is all before it."""
        if receipt and not self._has_crashed():
            self.ledger.mark_flushed()
        elif not receipt:
            for entry in entries:
                entry.status = "optional" if UNCONFIRMED in receipt.reason else "rejected"

    def record_final_decisions(self) -> None:
        """Show each user a last slate and reward it, when all faults have ended."""
        for user in USERS:
            self.recommend(user)
            slate = self.slates[-1]
            if self.privacy:
                self._reward_all(self.slates.pop())
            else:
                self._reward(slate, slate[0], self._tag("r"))
            self.ledger.final_decisions.add(slate.decision)

    def mark_seen(self) -> None:
        assert self.engine is not None
        assert self.window_s is not None
        if self.slates:
            slate = self.rng.choice(self.slates)
            self.engine.seen(slate)
            is_open = self.decided_ms[slate.decision] + 1000 * self.window_s > self.clock.wall_ms()
            slots = tuple(item.slot for item in slate)
            entry = self._add("seen", "", slate.user, decision=slate.decision, slots=slots)
            # A slate from before a rotation of the identity opens no window.
            if not is_open or self.pseudonym_days is not None:
                entry.status = "optional"
            self.simulation.record(self.name, "sees", slate.decision)

    def observe(self) -> None:
        assert self.engine is not None
        user, tag = self.rng.choice(USERS), self._tag("o")
        self.engine.observe(user, f"item-{self.rng.randrange(MAX_ITEMS + 5)}", tag)
        self._add("observation", tag, user)

    def send_invalid_text(self) -> None:
        """Observe and reward with a lone surrogate, which no event can hold; it is rejected."""
        assert self.engine is not None
        with pytest.raises(ValueError, match="half"):
            self.engine.observe(self.rng.choice(USERS), "item-\ud800", "view")
        if self.slates:
            with pytest.raises(ValueError, match="half"):
                self.engine.reward(self.slates[-1], self.slates[-1][0], 1.0, "\udfff")

    def step(self) -> None:
        assert self.engine is not None
        wait = self.engine.step()
        self._mark_written()
        self.simulation.record(self.name, "steps", wait, self.engine.counters()["outbox"])

    def restart(self) -> None:
        self.close()
        self.simulation.record(self.name, "restarts")

    def crash(self) -> None:
        self._crash_now()

    def schedule_crash(self) -> None:
        """Let the device crash at one of the next operations of its disk."""
        self.disk.power_cut = self.rng.random() < 0.5
        self.disk.crash_after = self.rng.randint(0, 40)

    def forget_user(self) -> None:
        assert self.engine is not None
        user = self.rng.choice(USERS)
        try:
            self.engine.forget_user(user)
            self.simulation.record(self.name, "forgets", user)
        except StorageError:
            self.simulation.record(self.name, "cannot forget", user)
        self.ledger.forget_user(user)
        self.slates = [slate for slate in self.slates if slate.user != user]

    def fail_disk(self) -> None:
        """Let the disk fail for a while."""
        self.disk.failing = self.rng.choice([apsw.IOError, apsw.FullError])

        def clear_fault() -> None:
            self.disk.failing = None
            if self.engine is not None and self.engine.storage_fault:
                self.close()

        self.simulation.schedule(self.rng.uniform(1, 4000), clear_fault)

    def change_clock(self) -> None:
        """Set the clock forward or back, freeze it, or correct it."""
        change = self.rng.choice(["step", "jump", "freeze", "correct"])
        self.clock.frozen = self.clock.wall_ms() if change == "freeze" else None
        if change in ("step", "jump"):
            seconds = 3600 if change == "step" else 3 * YEAR_S
            self.clock.offset += self.rng.choice([-1, 1]) * round(1000 * seconds)
        elif change == "correct":
            self.clock.offset = 0

    def damage(self) -> None:
        """Flip one bit of a stored event while the engine is closed."""
        if self.disk.failing is not None or self.cannot_store():
            return
        self.close()
        if self.engine is not None or self._has_crashed():
            return
        event = damage_row(self.folder / "outbox.db", self.rng)
        self.disk.mark_flushed()
        if event is not None:
            self.ledger.mark_damaged(event)
        self.simulation.record(self.name, "damages", event and event.id)
