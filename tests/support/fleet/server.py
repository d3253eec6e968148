"""The simulated server: a collector called in process, with restarts, store faults and jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sanderling.upload.transport import Response
from sanderling_trainer.collector.limits import Limits
from sanderling_trainer.collector.server import create_app
from sanderling_trainer.jobs.compact import compact
from sanderling_trainer.jobs.erase import erase
from sanderling_trainer.jobs.lease import LEASE_S, BusyError
from tests.support.fleet.simulation import Simulation
from tests.support.stores import HookedStore

TOKEN = "secret"


class CrashError(OSError):
    """The process of a job crashes here."""


class FaultyStore(HookedStore):
    """A store that can fail, and at which the process of a job can crash."""

    fault = ""
    """"fails" before a file is written or "fails after" it; "" while the store works."""

    crash_after = -1
    """How many more changes succeed before a crash; -1 for no crash."""

    def put(self, name: str, data: bytes) -> None:
        if self.fault == "fails":
            raise OSError(28, "No space left on device")
        super().put(name, data)
        if self.fault == "fails after":
            raise OSError(5, "Input/output error")

    def before_change(self) -> None:
        if self.crash_after == 0:
            raise CrashError
        self.crash_after -= 1


class SimulatedServer:
    """A collector that may be down, and at most one job at a time."""

    def __init__(
        self, simulation: Simulation, folder: Path, store: type[FaultyStore] = FaultyStore
    ) -> None:
        self.simulation = simulation
        self.folder = folder
        self.rng = simulation.random_stream("lab")
        self.store = store(folder)
        self._jobs = store(folder)
        self.limits = Limits(
            body_bytes=self.rng.choice([2**21, 6000]), burst=self.rng.choice([20_000.0, 60.0])
        )
        self.erased: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._busy = False
        self._lifespan: Any = None
        self._start()

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        if self._lifespan is None:
            raise ConnectionRefusedError
        return self._loop.run_until_complete(_request(self._app, body, headers))

    def inject_fault(self) -> None:
        """Restart or stop the collector, let its store fail, or compact, at random."""
        fault = self.rng.choice(["restart", "down", "fails", "fails after", "compact", "compact"])
        self.simulation.record("lab", fault)
        if fault == "compact":
            self.compact(self.rng.choice([-1, -1, self.rng.randint(0, 6)]))
        elif fault in ("restart", "down"):
            self._stop()
            if fault == "restart":
                self._start()
            else:
                self.simulation.schedule(self.rng.uniform(1, 30_000), self.clear_fault)
        else:
            self.store.fault = fault
            self.simulation.schedule(self.rng.uniform(1, 3_000), self.clear_fault)

    def clear_fault(self) -> None:
        """End a fault of the store, and start a collector that is down."""
        self.store.fault = ""
        if self._lifespan is None:
            self._start()

    def compact(self, crash_after: int = -1) -> None:
        self._job(crash_after, lambda: compact(self._jobs, self.simulation))

    def erase(self, install: str, crash_after: int = -1) -> None:
        """Erase an install; devices act on while the job waits between its two passes."""
        self.erased.add(install)
        pause = self.simulation.run_for
        self._job(crash_after, lambda: erase(self._jobs, install, self.simulation, pause=pause))

    def _job(self, crash_after: int, work: Callable[[], object]) -> None:
        # The pause of an erasure runs the simulation, which may start another job.
        if self._busy:
            return

        self._busy = True
        self._jobs.crash_after = crash_after
        try:
            self.simulation.record("lab", "job", work())
        except CrashError:
            self.simulation.record("lab", "job crashed")
        except BusyError:
            self.simulation.record("lab", "the store is leased to another job, or to a crashed one")
        finally:
            self._busy = False

    def finish(self) -> None:
        """Run jobs again that may have crashed, once their lease has ended."""
        self.clear_fault()
        self.simulation.run_for(LEASE_S)
        for install in sorted(self.erased):
            self.erase(install)
        self.compact()

    def close(self) -> None:
        self._stop()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _start(self) -> None:
        self._app = create_app(self.store, TOKEN, self.simulation, self.limits)
        self._lifespan = self._app.router.lifespan_context(self._app)
        self._loop.run_until_complete(self._lifespan.__aenter__())

    def _stop(self) -> None:
        if self._lifespan is not None:
            self._loop.run_until_complete(self._lifespan.__aexit__(None, None, None))
            self._lifespan = None


async def _request(app: Any, body: bytes, headers: Mapping[str, str]) -> Response:
    """Make one request of an ASGI application."""
    sent = {"content-length": str(len(body)), **headers, "authorization": f"Bearer {TOKEN}"}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/events",
        "raw_path": b"/v1/events",
        "query_string": b"",
        "server": ("lab", 80),
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
    }
    messages: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, send)
    start, *parts = messages
    answer_headers = {name.decode(): value.decode() for name, value in start["headers"]}
    content = b"".join(part.get("body", b"") for part in parts)
    return Response(start["status"], answer_headers, content)
