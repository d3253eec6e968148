"""Runs the simulated fleet from a seed, and checks what the server has in the end.

    python -m tests.support.fleet.run SEED [MUTANT]      one seed: its faults and its digest
    python -m tests.support.fleet.run FIRST-LAST         many seeds

With TRACE=FILE in the environment, the trace of one seed is written to a file.
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
from tests.support.fleet.flip_statistics import flip_count_faults
from tests.support.fleet.invariants import Invariants
from tests.support.fleet.network import Network
from tests.support.fleet.releases import MAX_ITEMS, scratch_folder
from tests.support.fleet.server import FaultyStore, SimulatedServer
from tests.support.fleet.simulation import START_MS, Simulation

MAX_DRAIN_STEPS = 3000
IDS = [f"item-{row}" for row in range(MAX_ITEMS)]


@dataclass(frozen=True)
class Mutant:
    """Broken parts that replace the real ones."""

    device: dict[str, Any] = field(default_factory=dict)
    store: type[FaultyStore] = FaultyStore
    read: Callable[[str], EventLog] = read_segments


@dataclass
class RunResult:
    """The result of one seed."""

    seed: int
    faults: list[str]
    digest: str
    trace: list[str]
    events: int = 0
    rewards: int = 0
    crashes: int = 0
    duplicates: int = 0
    days: float = 0.0
    flip_counts: Counter[tuple[float, bool]] = field(default_factory=Counter)


def simulate(seed: int, mutant: Mutant | None = None) -> RunResult:
    """Run one seed, and compare the server's events with the ledgers."""
    folder = Path(tempfile.mkdtemp(prefix="fleet-", dir=scratch_folder()))
    try:
        return _simulate(seed, mutant or Mutant(), folder)
    finally:
        shutil.rmtree(folder)


def _simulate(seed: int, mutant: Mutant, folder: Path) -> RunResult:
    simulation = Simulation(seed, folder)
    rng = simulation.random_stream("course")
    server = SimulatedServer(simulation, folder / "lab", mutant.store)
    network = Network(simulation, server.post)
    devices = [
        Device(simulation, network, f"d{number}", folder / f"d{number}", **mutant.device)
        for number in range(rng.randint(1, 4))
    ]
    for device in devices:
        _schedule_app(simulation, device, rng.randint(20, 80))
    for _ in range(rng.randint(2, 8)):
        simulation.schedule(10 * DAY_S * rng.random(), server.inject_fault)
    if rng.random() < 0.3:
        simulation.schedule(10 * DAY_S * rng.random(), lambda: _erase(server, network, rng))
    faults = []
    try:
        simulation.run_all()
        faults = _drain(simulation, server, network, devices)
        server.finish()
    finally:
        for device in devices:
            device.close()
        server.close()
    log = mutant.read(str(folder / "lab"))
    examples = examples_of(log, IDS, KINDS, TEXT)
    invariants = Invariants(
        [device.ledger for device in devices],
        network.sent_events,
        network.delayed_ids,
        server.erased,
        log,
    )
    faults += invariants.faults(examples, {id: row for row, id in enumerate(IDS)})
    simulation.record(
        "log", sorted(log.time.items()), log.received, log.duplicates, len(examples.decisions)
    )
    return RunResult(
        seed,
        faults,
        simulation.digest(),
        simulation.trace,
        events=len(log.time),
        rewards=sum(
            entry.kind == "outcome" for device in devices for entry in device.ledger.entries
        ),
        crashes=sum(len(device.ledger.crashes) for device in devices),
        duplicates=log.duplicates,
        days=(simulation.now - START_MS) / 86_400_000,
        flip_counts=invariants.flip_counts(),
    )


def _schedule_app(simulation: Simulation, device: Device, actions: int) -> None:
    """Schedule a device's actions, in sessions with hours or days between."""
    rng = simulation.random_stream(f"{device.name}/life")

    def act(left: int) -> None:
        device.act()
        pause = rng.choice([2.0, 2.0, 2.0, 60.0, 3600.0, 4 * DAY_S]) * rng.random() ** 2
        if left > 1:
            simulation.schedule(pause, lambda: act(left - 1))

    simulation.schedule(3600 * rng.random(), lambda: act(actions))


def _erase(server: SimulatedServer, network: Network, rng: Any) -> None:
    installs = sorted({event.install for event in network.sent_events.values()})
    if installs:
        server.erase(rng.choice(installs), rng.choice([-1, -1, rng.randint(0, 4)]))


def _drain(
    simulation: Simulation, server: SimulatedServer, network: Network, devices: list[Device]
) -> list[str]:
    """Stop all faults, let all reward windows end and all devices upload; return what fails."""
    network.clear_faults()
    server.clear_fault()
    for device in devices:
        device.clear_faults()
    for pause, last in ((0, False), (3 * DAY_S, False), (0, True)):
        simulation.run_for(pause)
        simulation.run_all()
        for device in devices if last else ():
            device.record_final_decisions()
        for _ in range(MAX_DRAIN_STEPS):
            left = [device.name for device in devices if not device.upload_step()]
            if not left:
                break
            simulation.run_for(20)
        else:
            return [
                f"{name}: not all events were uploaded in {MAX_DRAIN_STEPS} steps" for name in left
            ]
    return []


def main(seeds: str, mutant: str = "") -> int:
    """Run one seed or a range; print faults and totals; return whether any seed failed."""
    from tests.support.fleet.mutants import MUTANTS

    first, _, last = seeds.partition("-")
    failed = 0
    total = RunResult(0, [], "", [])
    for seed in range(int(first), int(last or first) + 1):
        result = simulate(seed, MUTANTS[mutant] if mutant else None)
        for name in ("events", "rewards", "crashes", "duplicates", "days", "flip_counts"):
            setattr(total, name, getattr(total, name) + getattr(result, name))
        if result.faults:
            failed += 1
            command = replay_command(seed, mutant)
            print(f"seed {seed}: {len(result.faults)} faults, replay: `{command}`", flush=True)
            print(*(f"  {fault}" for fault in result.faults[:8]), sep="\n", flush=True)
        if not last:
            print(result.digest)
            if "TRACE" in os.environ:
                Path(os.environ["TRACE"]).write_text("\n".join(result.trace))
    improbable = list(flip_count_faults(total.flip_counts))
    print(*improbable, sep="\n")
    print(f"{failed} seeds failed; {total.events} events received, {total.duplicates} duplicates")
    print(
        f"{total.rewards} rewards, {total.flip_counts.total()} of them randomized,"
        f" {total.crashes} crashes, {total.days:.0f} days"
    )
    return failed > 0 or bool(improbable)


def replay_command(seed: int, mutant: str = "") -> str:
    """Return the command that repeats a run."""
    return f"python -m tests.support.fleet.run {seed}" + (f" '{mutant}'" if mutant else "")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
