"""The demo's fleet: devices, collector and release server, and an account of every event."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sanderling.events.schema import Outcome
from sanderling_trainer.demo.device_process import DeviceSetup, read_journal, write_plan
from sanderling_trainer.demo.people import World
from sanderling_trainer.demo.processes import CollectorProcess, Device, ReleaseServer
from sanderling_trainer.event_log.reader import EventLog

PROCESSES = 2
FLUSH_TIMEOUT_S = 300.0


class Fleet:
    """The devices take updates; as many controls with the same people stay on release 1.

    Controls send nothing, so that nothing is learned from them.
    """

    def __init__(self, out: Path, bundle: Path, world: World) -> None:
        (out / "logs").mkdir(parents=True, exist_ok=True)
        self._out = out
        self._world = world
        token = secrets.token_hex(16)
        self.collector = CollectorProcess(out / "events", token, out / "logs" / "collector.log")
        self._server = ReleaseServer(out / "repository")

        def process(name: str, collector: str | None) -> Device:
            state = out / "devices" / name
            state.mkdir(parents=True)
            setup = DeviceSetup(
                bundle=str(bundle),
                state=str(state),
                devices=world.settings.devices // PROCESSES,
                collector=collector,
                token=token,
                releases=self._server.url,
                root=str(out / "repository" / "root.json"),
            )
            return Device(setup, out / "logs" / f"{name}.log")

        numbers = range(PROCESSES)
        self.devices = [process(f"devices-{number}", self.collector.url) for number in numbers]
        self.controls = [process(f"controls-{number}", None) for number in numbers]
        self._counters: list[dict[str, Any]] = []

    def start(self) -> None:
        """Start everything."""
        self.collector.start()
        self._server.start()
        for process in [*self.devices, *self.controls]:
            process.start()

    def stop(self) -> None:
        """Stop everything."""
        for process in [*self.devices, *self.controls]:
            process.stop()
        self.collector.stop()
        self._server.stop()

    def live(self, night: int, kill: bool = False) -> None:
        """Let the night's people visit the devices, and then the same people the controls.

        `kill` kills the first process on its way.
        """
        attraction = self._out / "nights" / f"attraction-{night + 1}.npy"
        attraction.parent.mkdir(exist_ok=True)
        np.save(attraction, self._world.attraction(night))
        for group in (self.devices, self.controls):
            for number, process in enumerate(group):
                numbers = range(number, self._world.settings.devices, PROCESSES)
                plan = self._world.plan(night, numbers, attraction)
                write_plan(plan, _plan_file(process, night))
            label = f"night {night + 1}, {'controls' if group is self.controls else 'devices'}"
            visits = len(self._world) * self._world.settings.visits
            with tqdm(total=visits, desc=label, unit="visit") as bar:
                self._live_at_once(group, night, visits, kill and group is self.devices, bar)

    def _live_at_once(
        self, group: Sequence[Device], night: int, visits: int, kill: bool, bar: Any
    ) -> None:
        """Run all processes of a group at once, one thread each."""
        lock = threading.Lock()
        errors: list[Exception] = []

        def progress() -> None:
            with lock:
                bar.update(1)

        def work(number: int) -> None:
            kill_after = visits // (3 * PROCESSES) if kill and number == 0 else 0
            try:
                _live(group[number], night, progress, kill_after)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(len(group))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def flush(self, collector_down_s: float = 0.0) -> None:
        """Wait until every device's events are acknowledged.

        The collector is down for so many seconds first, while the devices try.

        Raises:
            TimeoutError: a device could not deliver them within `FLUSH_TIMEOUT_S`.
        """
        if collector_down_s:
            self.collector.stop()
        for process in self.devices:
            process.send(do="flush", timeout_s=FLUSH_TIMEOUT_S)
        if collector_down_s:
            time.sleep(collector_down_s)
            self.collector.start()

        answers = [process.wait("flushed") for process in self.devices]
        if not all(answer["empty"] for answer in answers):
            raise TimeoutError(
                f"a device could not deliver its events within {FLUSH_TIMEOUT_S} s:"
                f" {[answer['counters'] for answer in answers]}"
            )
        self._counters = [answer["counters"] for answer in answers]

    def update(self) -> list[dict[str, Any]]:
        """Let the devices fetch the newest release; return each one's release and seconds.

        Raises:
            ChildProcessError: a device could not update.
        """
        for process in self.devices:
            process.send(do="update")
        updates = [
            update for process in self.devices for update in process.wait("updated")["updates"]
        ]
        for update in updates:
            if update["error"]:
                raise ChildProcessError(f"a device could not update: {update['error']}")
        return [{"to": update["to"], "seconds": update["seconds"]} for update in updates]

    def journals(self, night: int) -> tuple[list[Path], list[Path]]:
        """Return the journals of a night, the devices' and the controls'."""
        devices, controls = (
            [_journal(process, night) for process in group]
            for group in (self.devices, self.controls)
        )
        return devices, controls

    def account(self, log: EventLog) -> dict[str, Any]:
        """Compare what the devices' journals promise with what the collector stored.

        `lost` counts rewards that were acknowledged to the app and have no outcome in the log;
        `missing` counts gaps in the installs' event numbers that no device declared as lost.
        """
        stored = {
            (event.decision, event.slot)
            for events in log.events.values()
            for event in events
            if isinstance(event, Outcome)
        }
        promised = {
            (visit.decision, slot)
            for process in self.devices
            for night in range(self._world.nights)
            for visit in read_journal(_journal(process, night))
            for slot in range(len(visit.shown))
        }
        distinct = len(log.time)
        return {
            "stored": distinct + sum(counters["pending"] for counters in self._counters),
            "acknowledged": distinct,
            "received": log.received,
            "rewards": len(promised),
            "duplicates": log.duplicates,
            "conflicts": log.conflicts,
            "missing": log.missing,
            "lost": len(promised - stored),
        }


def _plan_file(process: Device, night: int) -> Path:
    return Path(process.setup.state) / f"plan-{night + 1}.json"


def _journal(process: Device, night: int) -> Path:
    return Path(process.setup.state) / f"journal-{night + 1}.jsonl"


def _live(process: Device, night: int, progress: Callable[[], None], kill_after: int) -> None:
    """Carry out a night's plan; kill the process after so many visits, never with 0."""
    journal = str(_journal(process, night))
    command = {"do": "night", "plan": str(_plan_file(process, night)), "journal": journal}
    process.send(**command)
    if kill_after:
        for _ in range(kill_after):
            process.wait_for_step(progress)
        process.kill()
        process.start()
        process.send(**command)
    process.wait("lived", progress)
