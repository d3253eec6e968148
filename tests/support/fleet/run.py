"""One course of a fleet from one integer.

`python -m tests.support.fleet.run SEED [MUTANT]` plays it again and says what is wrong, and with
TRACE=FILE in the environment writes down everything that was done; `python -m
tests.support.fleet.run FIRST-LAST` plays many.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanderling_trainer.event_log.examples import examples_of
from sanderling_trainer.event_log.reader import EventLog, read_segments
from tests.support.bundles import KINDS, TEXT
from tests.support.fleet.device import DAY_S, Device
from tests.support.fleet.editions import MOST_ITEMS, place
from tests.support.fleet.lab import FlakyStore, Lab
from tests.support.fleet.model import Model
from tests.support.fleet.network import Network
from tests.support.fleet.odds import odds_faults
from tests.support.fleet.world import START_MS, World

ROUNDS = 3000
IDS = [f"item-{row}" for row in range(MOST_ITEMS)]


@dataclass(frozen=True)
class Mutant:
    """The broken parts that replace the real ones."""

    device: dict[str, Any] = field(default_factory=dict)
    store: type[FlakyStore] = FlakyStore
    read: Callable[[str], EventLog] = read_segments


@dataclass
class Course:
    """The result of one seed."""

    seed: int
    faults: list[str]
    digest: str
    trace: list[str]
    events: int = 0
    rewards: int = 0
    deaths: int = 0
    duplicates: int = 0
    days: float = 0.0
    told: Counter[tuple[float, bool]] = field(default_factory=Counter)


def course(seed: int, mutant: Mutant | None = None) -> Course:
    """Run one seed, and compare what the lab reads with the ledgers."""
    folder = Path(tempfile.mkdtemp(prefix="fleet-", dir=place()))
    try:
        return _course(seed, mutant or Mutant(), folder)
    finally:
        shutil.rmtree(folder)


def _course(seed: int, mutant: Mutant, folder: Path) -> Course:
    world = World(seed, folder)
    rng = world.chance("course")
    lab = Lab(world, folder / "lab", mutant.store)
    network = Network(world, lab.post)
    devices = [
        Device(world, network, f"d{number}", folder / f"d{number}", **mutant.device)
        for number in range(rng.randint(1, 4))
    ]
    for device in devices:
        _live(world, device, rng.randint(20, 80))
    for _ in range(rng.randint(2, 8)):
        world.after(10 * DAY_S * rng.random(), lab.disturb)
    if rng.random() < 0.3:
        world.after(10 * DAY_S * rng.random(), lambda: _erase(lab, network, rng))
    faults = []
    try:
        world.settle()
        faults = _end(world, lab, network, devices)
        lab.finish()
    finally:
        for device in devices:
            device.close()
        lab.close()
    log = mutant.read(str(folder / "lab"))
    examples = examples_of(log, IDS, KINDS, TEXT)
    model = Model(
        [device.ledger for device in devices], network.left, network.delayed, lab.erased, log
    )
    faults += model.faults(examples, {id: row for row, id in enumerate(IDS)})
    world.note(
        "log", sorted(log.time.items()), log.received, log.duplicates, len(examples.decisions)
    )
    return Course(
        seed,
        faults,
        world.digest(),
        world.trace,
        events=len(log.time),
        rewards=sum(
            entry.what == "outcome" for device in devices for entry in device.ledger.entries
        ),
        deaths=sum(len(device.ledger.deaths) for device in devices),
        duplicates=log.duplicates,
        days=(world.now - START_MS) / 86_400_000,
        told=model.told(),
    )


def _live(world: World, device: Device, acts: int) -> None:
    """Let a device act, in sessions with hours or days between."""
    rng = world.chance(f"{device.name}/life")

    def act(left: int) -> None:
        device.act()
        pause = rng.choice([2.0, 2.0, 2.0, 60.0, 3600.0, 4 * DAY_S]) * rng.random() ** 2
        if left > 1:
            world.after(pause, lambda: act(left - 1))

    world.after(3600 * rng.random(), lambda: act(acts))


def _erase(lab: Lab, network: Network, rng: Any) -> None:
    installs = sorted({event.install for event in network.left.values()})
    if installs:
        lab.erase(rng.choice(installs), rng.choice([-1, -1, rng.randint(0, 4)]))


def _end(world: World, lab: Lab, network: Network, devices: list[Device]) -> list[str]:
    """Stop all faults, let all windows end and all devices upload."""
    network.heal()
    lab.clear_gap()
    for device in devices:
        device.heal()
    for pause, last in ((0, False), (3 * DAY_S, False), (0, True)):
        world.run(pause)
        world.settle()
        for device in devices if last else ():
            device.say_goodbye()
        for _ in range(ROUNDS):
            left = [device.name for device in devices if not device.drained()]
            if not left:
                break
            world.run(20)
        else:
            return [f"{name} does not get rid of its events" for name in left]
    return []


def main(seeds: str, mutant: str = "") -> int:
    from tests.support.fleet.mutants import MUTANTS

    first, _, last = seeds.partition("-")
    failed = 0
    total = Course(0, [], "", [])
    for seed in range(int(first), int(last or first) + 1):
        found = course(seed, MUTANTS[mutant] if mutant else None)
        for name in ("events", "rewards", "deaths", "duplicates", "days", "told"):
            setattr(total, name, getattr(total, name) + getattr(found, name))
        if found.faults:
            failed += 1
            print(
                f"seed {seed}: {len(found.faults)} faults: again with `{again(seed, mutant)}`",
                flush=True,
            )
            print(*(f"  {fault}" for fault in found.faults[:8]), sep="\n", flush=True)
        if not last:
            print(found.digest)
            if "TRACE" in os.environ:
                Path(os.environ["TRACE"]).write_text("\n".join(found.trace))
    strange = list(odds_faults(total.told))
    print(*strange, sep="\n")
    print(
        f"{failed} seeds failed; at the lab {total.events} events, and {total.duplicates} more that came again"
    )
    print(
        f"{total.rewards} rewards, {total.told.total()} of them noisy, {total.deaths} deaths, {total.days:.0f} days"
    )
    return failed > 0 or bool(strange)


def again(seed: int, mutant: str = "") -> str:
    """Return the command that repeats a run."""
    return f"python -m tests.support.fleet.run {seed}" + (f" '{mutant}'" if mutant else "")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
