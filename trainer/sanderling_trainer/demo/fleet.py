"""The demo's fleet: what its processes do together, and an account of every event.

Refuses to know how policies are learned.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sanderling.events.schema import Outcome
from sanderling_trainer.demo.device_process import Plan, read_journal
from sanderling_trainer.demo.processes import CollectorProcess, Device, ReleaseServer
from sanderling_trainer.event_log.reader import EventLog

DEVICES = 2
FLUSH_S = 300.0
UNPLUG_AFTER_S = 2.0


class Fleet:
    """Collector, releases, and devices that take updates; each has a control, with the same users, that does not."""

    def __init__(self, out: Path, bundle: Path) -> None:
        (out / "logs").mkdir(parents=True, exist_ok=True)
        token = secrets.token_hex(16)
        self.collector = CollectorProcess(out / "events", token, out / "logs" / "collector.log")
        self._server = ReleaseServer(out / "repository")

        def device(name: str) -> Device:
            (out / "devices" / name).mkdir(parents=True)
            plan = Plan(
                bundle=str(bundle),
                state=str(out / "devices" / name / "state"),
                collector=self.collector.url,
                token=token,
                releases=self._server.url,
                root=str(out / "repository" / "root.json"),
                slots=10,
            )
            return Device(plan, out / "logs" / f"{name}.log")

        self.devices = [device(f"device-{number}") for number in range(DEVICES)]
        self.controls = [device(f"control-{number}") for number in range(DEVICES)]

    def start(self) -> None:
        """Start everything but the controls."""
        self.collector.start()
        self._server.start()
        for one in self.devices:
            one.start()

    def stop(self) -> None:
        """Stop everything."""
        for one in [*self.devices, *self.controls]:
            one.stop()
        self.collector.stop()
        self._server.stop()

    def replay(
        self, number: int, ways: Sequence[dict[str, Any]], down_s: float = 0.0, kill: bool = False
    ) -> None:
        """Let each device replay its share of the ways of slice `number`; on slice 2 the controls do the same."""
        shares = [ways[start::DEVICES] for start in range(DEVICES)]
        groups = [self.devices] if number == 1 else [self.devices, self.controls]
        for group in groups:
            for one in group if group is self.controls else []:
                one.start()
            label = f"slice {number}, release {1 if group is self.controls else number}"
            steps = sum(len(way["later"]) for way in ways)
            with tqdm(total=steps, desc=label, unit="decision") as bar:
                self._replay_all(group, number, shares, down_s, kill, bar)

    def _replay_all(
        self,
        group: Sequence[Device],
        number: int,
        shares: Sequence[Sequence[dict[str, Any]]],
        down_s: float,
        kill: bool,
        bar: Any,
    ) -> None:
        lock, faults = threading.Lock(), []

        def progress() -> None:
            with lock:
                bar.update(1)

        def work(at: int) -> None:
            try:
                _replay(group[at], number, shares[at], progress, kill and at == 0)
            except Exception as error:
                faults.append(error)

        threads = [threading.Thread(target=work, args=(at,)) for at in range(len(group))]
        for thread in threads:
            thread.start()
        if down_s:
            time.sleep(UNPLUG_AFTER_S)
            self.collector.stop()
            time.sleep(down_s)
            self.collector.start()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]

    def flush(self) -> None:
        """Wait until every device's events are acknowledged."""
        self._counters = []
        running = [one for one in [*self.devices, *self.controls] if one.running]
        for one in tqdm(running, desc="flush", unit="device", leave=False):
            one.tell(do="flush", timeout_s=FLUSH_S)
            answer = one.wait("flushed")
            if not answer["empty"]:
                raise TimeoutError(
                    f"a device could not deliver its events within {FLUSH_S} s: {answer['counters']}"
                )
            self._counters.append(answer["counters"])

    def update(self) -> list[dict[str, Any]]:
        """Let the devices fetch the newest release."""
        answers = []
        for one in tqdm(self.devices, desc="update", unit="device", leave=False):
            one.tell(do="update")
            answer = one.wait("updated")
            if answer["fault"]:
                raise ChildProcessError(f"a device could not update: {answer['fault']}")
            answers.append({"to": answer["to"], "seconds": answer["seconds"]})
        return answers

    def journals(self, number: int) -> list[Path]:
        """Return the journals of slice 2 by release: the controls' for release 1, the devices' for release 2."""
        group = self.devices if number == 2 else self.controls
        return [_journal(one, 2) for one in group]

    def account(self, found: EventLog) -> dict[str, Any]:
        """Hold what the devices' journals promise against what the segments hold.

        A reward that was acknowledged to the app and has no outcome in the segments is lost. What is not in the
        segments and not declared lost is missing: the numbers of each install's events say so.
        """
        arrived = {
            (e.decision, e.slot)
            for events in found.events.values()
            for e in events
            if isinstance(e, Outcome)
        }
        journals = [
            _journal(one, number) for one in [*self.devices, *self.controls] for number in (1, 2)
        ]
        promised = {
            (entry[2], slot)
            for path in journals
            for entry in read_journal(path)
            for slot in range(entry[4])
        }
        distinct = len(found.time)
        return {
            "stored": distinct + sum(counters["pending"] for counters in self._counters),
            "acknowledged": distinct,
            "received": found.received,
            "rewards": len(promised),
            "duplicates": found.duplicates,
            "conflicts": found.conflicts,
            "missing": found.missing,
            "lost": len(promised - arrived),
        }


def _journal(device: Device, number: int) -> Path:
    return Path(device.plan.state).parent / f"journal-{number}.jsonl"


def _replay(
    device: Device,
    number: int,
    ways: Sequence[dict[str, Any]],
    progress: Callable[[], None],
    kill: bool,
) -> None:
    path = Path(device.plan.state).parent / f"journeys-{number}.jsonl"
    path.write_text("".join(json.dumps(way) + "\n" for way in ways), encoding="utf-8")
    command = {"do": "replay", "journeys": str(path), "journal": str(_journal(device, number))}
    device.tell(**command)
    if kill:
        for _ in range(sum(len(way["later"]) for way in ways) // 3):
            device.step(progress)
        device.kill()
        device.start()
        device.tell(**command)
    device.wait("replayed", progress)
