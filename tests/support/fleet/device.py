"""One device: an engine on a failing disk with a wrong clock, and an app that acts at random.

The ledger records what the app was promised.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import apsw
import pytest

from sanderling import Engine, Receipt, Slate, SlateItem
from sanderling.errors import StorageError
from sanderling.events import codec
from sanderling.events.schema import Event
from sanderling.outbox.records import EventRow
from sanderling.runtime.clock import Entropy
from tests.support.engines import active_bundle_of
from tests.support.fleet import changes
from tests.support.fleet.editions import GIVEN, MOST_ITEMS, editions
from tests.support.fleet.ledger import Entry, Ledger, noisy_key
from tests.support.fleet.network import Line, Network
from tests.support.fleet.shelf import Shelf
from tests.support.fleet.storage import FleetDisk
from tests.support.fleet.world import World

DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
USERS = ["anna", "ben", "carla"]
LENGTHS = [1, 2, 3, 4, 5, 6, 15]
VALUES = [1.0, 0.5, -1.0]
CONTEXTS = [None, None, "", "rainy sunday evening", "on the train", "half \ud800"]
CLOCKS = [
    0,
    0,
    -2 * YEAR_S,
    10 * YEAR_S,
    3600,
    -55 * YEAR_S,
    -10 * YEAR_S,
]  # -55: in 1970, never set


class DeviceClock:
    """A clock that is wrong by `offset` ms or frozen; its monotonic time starts at each boot."""

    def __init__(self, world: World, offset: int) -> None:
        self.world, self.offset, self.boot = world, offset, world.now
        self.frozen: int | None = None

    def wall_ms(self) -> int:
        return max(0, self.world.now + self.offset) if self.frozen is None else self.frozen

    def mono_ms(self) -> int:
        return self.world.now - self.boot


class Device:
    """`entropy` makes the random source of one run; `spoil` breaks an engine on purpose after
    opening."""

    def __init__(
        self,
        world: World,
        network: Network,
        name: str,
        folder: Path,
        *,
        entropy: Callable[[random.Random], Entropy] = lambda rng: rng.randbytes,
        spoil: Callable[[Engine], None] = lambda engine: None,
        line: type[Line] = Line,
    ) -> None:
        self.world, self.name, self.folder, self.spoil = world, name, folder, spoil
        self.rng = world.chance(name)
        self._entropy, self._make_entropy = world.chance(f"{name}/entropy"), entropy
        self.privacy = self.rng.choice([0.5, 2.0]) if self.rng.random() < 0.35 else None
        self.window_s = None if self.privacy else self.rng.choice([None, 600.0, DAY_S])
        self.adapt = self.privacy is None and self.rng.random() < 0.3
        changing, swapping = self.rng.random() < 0.5, self.rng.random() < 0.5
        self.days = self.rng.choice([None, None, 2.0])
        wild = self.rng.random() < 0.4
        sheds = self.rng.random() < 0.15
        self.bytes = 128 * 1024 if sheds else 2**24
        self.ledger = Ledger(
            name,
            sheds=sheds,
            steady=not wild,
            privacy=self.privacy or 0.0,
            shares=self.rng.random() < 0.4,
        )
        self.shelf = Shelf(editions())
        self.clock = DeviceClock(world, round(1000 * self.rng.choice(CLOCKS)))
        self.furthest = self.clock.wall_ms()
        folder.mkdir()
        self.disk = FleetDisk(folder, world.chance(f"{name}/disk"))
        self.line = line(network, name, lambda: self.disk.image is not None, self._die_now)
        self.engine: Engine | None = None
        self.slates: list[Slate] = []
        self.made: dict[str, int] = {}
        self.tags, self._erasures = 0, 0
        self.actions: dict[Callable[[], None], float] = {
            self.recommend: 6, self.reward: 7, self.observe: 3, self.step: 6, self.restart: 0.7, self.kill: 1,
            self.arm: 1, self.forget: 0.2, self.misspell: 0.2, self.trouble: 0.4, self.rot: 0.3,
            self.see: 4 if self.window_s else 0, self.turn_clock: 0.8 if wild else 0,
            partial(changes.upsert, self): 1.5 * changing, partial(changes.remove, self): changing,
            partial(changes.swap, self): 1.5 * swapping, partial(changes.roll_back, self): 0.5 * swapping,
        }  # fmt: skip

    # What the simulation does with a device

    def act(self) -> None:
        """Do one action at random, and crash if that was planned."""
        action = self.rng.choices(list(self.actions), list(self.actions.values()))[0]
        if self.engine is None:
            self.open()
        if self.disk.image is None:
            action()
        self.after()

    def open(self) -> None:
        entropy = self._make_entropy(self._entropy)
        with self.disk:
            self.engine = Engine.open(
                editions()[GIVEN].folder, self.folder, transport=self.line, window_s=self.window_s, adapt=self.adapt,
                privacy=self.privacy, share_context=self.ledger.shares, pseudonym_days=self.days,
                outbox_bytes=self.bytes, background=False, clock=self.clock, entropy=entropy,
            )  # fmt: skip
        if self.disk.image is None:  # else it died over its outbox, before it looked for releases
            self.shelf.open(active_bundle_of(self.engine).owns_folder)
        self.line.engine = self.engine
        self.spoil(self.engine)
        self._erasures = 0
        self.world.note(self.name, "opens", self.engine.storage_fault)

    def after(self) -> None:
        """Update the ledger: what was written or erased, and whether the device crashed."""
        counters = self.engine.counters() if self.engine else {"outbox": None, "upload": None}
        if counters["upload"] and counters["upload"].erasures > self._erasures:
            self._erasures = counters["upload"].erasures
            self.world.note(self.name, "was erased")
            self.ledger.erase()
        self.furthest = max(self.furthest, self.clock.wall_ms())
        if self.disk.image is not None:
            self._bury()
        self.world.take(self.rng.uniform(0.001, 0.01))

    def _written(self) -> None:
        """Note that everything is in the file after a step, unless the disk fails."""
        assert self.engine is not None
        outbox = self.engine.counters()["outbox"]
        if outbox and outbox.queued == 0 and self.disk.image is None and self.disk.failing is None:
            self.ledger.write()

    def _die_now(self) -> None:
        self.disk.power = self.rng.random() < 0.5
        self.disk.take_image()

    def _bury(self) -> None:
        assert self.engine is not None
        self.world.note(self.name, "died", "power" if self.disk.power else "kill")
        self.ledger.die(self.disk.power)
        self.disk.failing = None
        self.engine.close()
        self.disk.restore()
        self.engine, self.slates = None, []
        if self.disk.power:
            self.clock.boot = self.world.now

    def heal(self) -> None:
        """Stop all faults; a clock that jumped is set to a time after all that it ever showed."""
        self.disk.dies_in, self.disk.failing = None, None
        if self.engine is not None and self.engine.storage_fault:
            self.close()
        if not self.ledger.steady:
            self.clock.frozen = None
            self.clock.offset = max(0, self.furthest - self.world.now)

    def drained(self) -> bool:
        """Upload one batch; return whether nothing is left."""
        if self.engine is None:
            self.open()
        assert self.engine is not None
        self.engine.step()
        self._written()
        self.after()
        outbox = self.engine.counters()["outbox"]
        return bool(outbox) and outbox.queued == outbox.pending == 0

    def close(self) -> None:
        """Close the engine; what is queued is stored, unless the disk fails."""
        if self.engine is not None:
            self.engine.close()
            self.shelf.close()
            if self.disk.image is not None:
                self._bury()
                return
            if self.disk.failing is None and not self.ledger_is_open():
                self.ledger.flush()
            else:
                self.ledger.die(power=True)
                self.slates = []
            self.engine = None

    def ledger_is_open(self) -> bool:
        """Return whether the engine cannot store anything."""
        return self.engine is None or self.engine.storage_fault not in (
            None,
            "the engine is closed",
        )

    # What the app does

    def _tag(self, letter: str) -> str:
        self.tags += 1
        return f"{letter}-{self.name}-{self.tags}"

    def _add(self, what: str, key: str, user: str, **fields: object) -> Entry:
        entry = self.ledger.add(Entry(what, key, user, self.world.now, **fields))  # type: ignore[arg-type]
        if self.engine is None or self.engine.storage_fault:
            entry.fate = "void"
        return entry

    def recommend(self, user: str = "") -> None:
        assert self.engine is not None
        user, context = user or self.rng.choice(USERS), self.rng.choice(CONTEXTS)
        without = self.rng.choice([[], [], self._some(), self.shelf.others()])
        greedy = self.rng.random() < 0.1
        slate = self.engine.recommend(
            user, self.rng.choice(LENGTHS), context, without, greedy=greedy
        )
        join_confirmation()
        self._add("decision", slate.decision, user)
        self.made[slate.decision] = self.clock.wall_ms()
        self.ledger.slates[slate.decision] = slate
        self.ledger.choices[slate.decision] = self.shelf.choice(without, context)
        if self.disk.image is None:
            self.shelf.serve()
        self.slates = [*self.slates[-5:], slate] if slate.items else self.slates
        shown = [(item.id, item.rank, item.propensity) for item in slate]
        self.world.note(self.name, "recommends", slate.decision, shown)

    def _some(self) -> list[str]:
        return [f"item-{self.rng.randrange(MOST_ITEMS)}" for _ in range(3)]

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
        self.world.note(self.name, "rewards", tag, receipt)

    def _reward_all(self, slate: Slate) -> None:
        """Reward a whole slate in one call, as apps with `privacy` should."""
        assert self.engine is not None
        values = {item: self.rng.choice(VALUES) for item in slate}
        receipt = self.engine.reward_all(slate, values)
        entries = [
            self._add(
                "outcome", noisy_key(slate.decision, item.slot), slate.user,
                decision=slate.decision, slots=(item.slot,), value=value,
            )
            for item, value in values.items()
        ]  # fmt: skip
        self._receive(receipt, entries)
        self.world.note(self.name, "rewards all", slate.decision, receipt)

    def _receive(self, receipt: Receipt, entries: list[Entry]) -> None:
        if receipt and self.disk.image is None:
            self.ledger.flush()
        elif not receipt:
            for entry in entries:
                entry.fate = "free" if "not known" in receipt.reason else "never"

    def say_goodbye(self) -> None:
        """Show each user a last slate and reward it."""
        for user in USERS:
            self.recommend(user)
            slate = self.slates[-1]
            if self.privacy:
                self._reward_all(self.slates.pop())
            else:
                self._reward(slate, slate[0], self._tag("r"))
            self.ledger.goodbyes.add(slate.decision)

    def see(self) -> None:
        assert self.engine is not None
        assert self.window_s is not None
        if self.slates:
            slate = self.rng.choice(self.slates)
            self.engine.seen(slate)
            waits = self.made[slate.decision] + 1000 * self.window_s > self.clock.wall_ms()
            slots = tuple(item.slot for item in slate)
            entry = self._add("seen", "", slate.user, decision=slate.decision, slots=slots)
            entry.fate = (
                entry.fate if waits and self.days is None else "free"
            )  # of another name's slate nothing is seen
            self.world.note(self.name, "sees", slate.decision)

    def observe(self) -> None:
        assert self.engine is not None
        user, tag = self.rng.choice(USERS), self._tag("o")
        self.engine.observe(user, f"item-{self.rng.randrange(MOST_ITEMS + 5)}", tag)
        self._add("observation", tag, user)

    def misspell(self) -> None:
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
        self._written()
        self.world.note(self.name, "steps", wait, self.engine.counters()["outbox"])

    def restart(self) -> None:
        self.close()
        self.world.note(self.name, "restarts")

    def kill(self) -> None:
        self._die_now()

    def arm(self) -> None:
        """Let the device crash at one of the next operations of its disk."""
        self.disk.power, self.disk.dies_in = self.rng.random() < 0.5, self.rng.randint(0, 40)

    def forget(self) -> None:
        assert self.engine is not None
        user = self.rng.choice(USERS)
        try:
            self.engine.forget_user(user)
            self.world.note(self.name, "forgets", user)
        except StorageError:
            self.world.note(self.name, "cannot forget", user)
        self.ledger.excuse(user)
        self.slates = [slate for slate in self.slates if slate.user != user]

    def trouble(self) -> None:
        """Let the disk fail for a while."""
        self.disk.failing = self.rng.choice([apsw.IOError, apsw.FullError])

        def clear_gap() -> None:
            self.disk.failing = None
            if self.engine is not None and self.engine.storage_fault:
                self.close()

        self.world.after(self.rng.uniform(1, 4000), clear_gap)

    def turn_clock(self) -> None:
        """Set the clock forward or back, freeze it, or correct it."""
        how = self.rng.choice(["step", "jump", "freeze", "right"])
        self.clock.frozen = self.clock.wall_ms() if how == "freeze" else None
        if how in ("step", "jump"):
            self.clock.offset += self.rng.choice([-1, 1]) * round(
                1000 * (3600 if how == "step" else 3 * YEAR_S)
            )
        elif how == "right":
            self.clock.offset = 0

    def rot(self) -> None:
        """Flip one bit of a stored event while the engine is closed."""
        if self.disk.failing is not None or self.ledger_is_open():
            return
        self.close()
        if self.engine is not None or self.disk.image is not None:
            return
        event = spoil_row(self.folder / "outbox.db", self.rng)
        self.disk.adopt()
        if event is not None:
            self.ledger.rot(event)
        self.world.note(self.name, "rots", event and event.id)


def join_confirmation() -> None:
    """Wait until a served release is confirmed: that happens in a background thread."""
    for thread in threading.enumerate():
        if thread.name == "sanderling-confirm":
            thread.join()


def spoil_row(path: Path, rng: random.Random) -> Event | None:
    """Flip one bit of an intact row; return its event."""
    database = apsw.Connection(str(path))
    rows = list(
        database.execute(
            "SELECT seq, CAST(id AS BLOB), CAST(line AS BLOB), crc FROM event ORDER BY seq"
        )
    )
    rows = [row for row in rows if EventRow(row[0], row[1], "", 0, *row[2:]).intact()]
    event = None
    if rows:
        seq, _, line, _ = rng.choice(rows)
        event = codec.decode(line)
        spoilt, name = bytearray(line), line.find(b'"user":"')
        places = [
            at for at in range(len(line)) if not name <= at < name + 41
        ]  # whose it is can still be read
        spoilt[rng.choice(places)] ^= 1 << rng.randrange(8)
        database.execute("UPDATE event SET line = ? WHERE seq = ?", (bytes(spoilt), seq))
    database.close()
    return event
