"""The demo's fleet: devices, collector and release server, and an account of every event."""

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
from sanderling_trainer.demo.device_process import DeviceSetup, read_journal
from sanderling_trainer.demo.processes import CollectorProcess, Device, ReleaseServer
from sanderling_trainer.event_log.reader import EventLog

DEVICES = 2
SLOTS = 10
FLUSH_TIMEOUT_S = 300.0
COLLECTOR_UP_S = 2.0
"""How long the replay runs before the collector is stopped."""


class Fleet:
    """The devices take updates; each has a control with the same users that stays on release 1."""

    def __init__(self, out: Path, bundle: Path) -> None:
        (out / "logs").mkdir(parents=True, exist_ok=True)
        token = secrets.token_hex(16)
        self.collector = CollectorProcess(out / "events", token, out / "logs" / "collector.log")
        self._server = ReleaseServer(out / "repository")

        def device(name: str) -> Device:
            (out / "devices" / name).mkdir(parents=True)
            setup = DeviceSetup(
                bundle=str(bundle),
                state=str(out / "devices" / name / "state"),
                collector=self.collector.url,
                token=token,
                releases=self._server.url,
                root=str(out / "repository" / "root.json"),
                slots=SLOTS,
            )
            return Device(setup, out / "logs" / f"{name}.log")

        self.devices = [device(f"device-{number}") for number in range(DEVICES)]
        self.controls = [device(f"control-{number}") for number in range(DEVICES)]
        self._counters: list[dict[str, Any]] = []

    def start(self) -> None:
        """Start everything but the controls, which `replay` starts for slice 2."""
        self.collector.start()
        self._server.start()
        for device in self.devices:
            device.start()

    def stop(self) -> None:
        """Stop everything."""
        for device in [*self.devices, *self.controls]:
            device.stop()
        self.collector.stop()
        self._server.stop()

    def replay(
        self,
        slice_number: int,
        trajectories: Sequence[dict[str, Any]],
        collector_down_s: float = 0.0,
        kill: bool = False,
    ) -> None:
        """Let each device replay its share of the trajectories; on slice 2 the controls do too.

        The collector is down for so many seconds, and `kill` kills the first device on its way.
        """
        shares = [trajectories[start::DEVICES] for start in range(DEVICES)]
        steps = sum(len(trajectory["later"]) for trajectory in trajectories)
        for group in [self.devices] if slice_number == 1 else [self.devices, self.controls]:
            is_control = group is self.controls
            if is_control:
                for device in group:
                    device.start()
            release = 1 if is_control else slice_number
            label = f"slice {slice_number}, release {release}"
            with tqdm(total=steps, desc=label, unit="decision") as bar:
                self._replay_shares(group, slice_number, shares, collector_down_s, kill, bar)

    def _replay_shares(
        self,
        group: Sequence[Device],
        slice_number: int,
        shares: Sequence[Sequence[dict[str, Any]]],
        collector_down_s: float,
        kill: bool,
        bar: Any,
    ) -> None:
        """Replay on all devices of a group at once, one thread a device."""
        lock = threading.Lock()
        errors: list[Exception] = []

        def progress() -> None:
            with lock:
                bar.update(1)

        def work(number: int) -> None:
            try:
                kill_this = kill and number == 0
                _replay(group[number], slice_number, shares[number], progress, kill_this)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(len(group))]
        for thread in threads:
            thread.start()
        if collector_down_s:
            time.sleep(COLLECTOR_UP_S)
            self.collector.stop()
            time.sleep(collector_down_s)
            self.collector.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def flush(self) -> None:
        """Wait until every running device's events are acknowledged.

        Raises:
            TimeoutError: a device could not deliver them within `FLUSH_TIMEOUT_S`.
        """
        self._counters = []
        running = [device for device in [*self.devices, *self.controls] if device.running]
        for device in tqdm(running, desc="flush", unit="device", leave=False):
            device.send(do="flush", timeout_s=FLUSH_TIMEOUT_S)
            answer = device.wait("flushed")
            if not answer["empty"]:
                raise TimeoutError(
                    f"a device could not deliver its events within {FLUSH_TIMEOUT_S} s:"
                    f" {answer['counters']}"
                )
            self._counters.append(answer["counters"])

    def update(self) -> list[dict[str, Any]]:
        """Let the devices fetch the newest release; return each one's release and seconds.

        Raises:
            ChildProcessError: a device could not update.
        """
        updates = []
        for device in tqdm(self.devices, desc="update", unit="device", leave=False):
            device.send(do="update")
            answer = device.wait("updated")
            if answer["error"]:
                raise ChildProcessError(f"a device could not update: {answer['error']}")
            updates.append({"to": answer["to"], "seconds": answer["seconds"]})
        return updates

    def journals(self, release: int) -> list[Path]:
        """Return the journals of slice 2: the controls' for release 1, the devices' for 2."""
        group = self.devices if release == 2 else self.controls
        return [_journal(device, 2) for device in group]

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
            (entry.decision, slot)
            for device in [*self.devices, *self.controls]
            for slice_number in (1, 2)
            for entry in read_journal(_journal(device, slice_number))
            for slot in range(entry.shown)
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


def _journal(device: Device, slice_number: int) -> Path:
    return Path(device.setup.state).parent / f"journal-{slice_number}.jsonl"


def _replay(
    device: Device,
    slice_number: int,
    trajectories: Sequence[dict[str, Any]],
    progress: Callable[[], None],
    kill: bool,
) -> None:
    path = Path(device.setup.state).parent / f"trajectories-{slice_number}.jsonl"
    lines = [json.dumps(trajectory) + "\n" for trajectory in trajectories]
    path.write_text("".join(lines), encoding="utf-8")
    journal = str(_journal(device, slice_number))
    command = {"do": "replay", "trajectories": str(path), "journal": journal}
    device.send(**command)
    if kill:
        steps = sum(len(trajectory["later"]) for trajectory in trajectories)
        for _ in range(steps // 3):
            device.wait_for_step(progress)
        device.kill()
        device.start()
        device.send(**command)
    device.wait("replayed", progress)
