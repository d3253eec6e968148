"""The lab: a collector over a folder, called in process, with restarts, store faults and jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sanderling.upload.transport import Response
from sanderling_trainer.collector.limits import Limits
from sanderling_trainer.collector.server import create_app
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.jobs.compact import compact
from sanderling_trainer.jobs.erase import erase
from sanderling_trainer.jobs.lease import LEASE_S, BusyError
from tests.support.fleet.world import World

TOKEN = "secret"


class DeathError(OSError):
    """The process of a job ends here."""


class FlakyStore(LocalObjectStore):
    """Fails before or after writing; callers cannot tell. `dies_in` counts operations, for jobs."""

    mood = "well"
    dies_in = -1

    def put(self, name: str, data: bytes) -> None:
        if self.mood == "fails":
            raise OSError(28, "No space left on device")
        self._age()
        super().put(name, data)
        if self.mood == "fails after":
            raise OSError(5, "Input/output error")

    def create(self, name: str, data: bytes) -> None:
        self._age()
        super().create(name, data)

    def delete(self, name: str) -> None:
        self._age()
        super().delete(name)

    def _age(self) -> None:
        if self.dies_in == 0:
            raise DeathError
        self.dies_in -= 1


class Lab:
    """A collector that may be down, and at most one job at a time."""

    def __init__(self, world: World, folder: Path, store: type[FlakyStore] = FlakyStore) -> None:
        self.world, self.folder, self.rng = world, folder, world.chance("lab")
        self.store, self._jobs = store(folder), store(folder)
        self.limits = Limits(
            body_bytes=self.rng.choice([2**21, 6000]), burst=self.rng.choice([20_000.0, 60.0])
        )
        self.erased: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._busy = False
        self._life: Any = None
        self._start()

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        if self._life is None:
            raise ConnectionRefusedError
        return self._loop.run_until_complete(_call(self._app, body, headers))

    def disturb(self) -> None:
        """Restart, go down, let the store fail or compact, at random."""
        what = self.rng.choice(["restart", "down", "fails", "fails after", "compact", "compact"])
        self.world.note("lab", what)
        if what == "compact":
            self.compact(self.rng.choice([-1, -1, self.rng.randint(0, 6)]))
        elif what in ("restart", "down"):
            self._stop()
            if what == "restart":
                self._start()
            else:
                self.world.after(self.rng.uniform(1, 30_000), self.clear_gap)
        else:
            self.store.mood = what
            self.world.after(self.rng.uniform(1, 3_000), self.clear_gap)

    def clear_gap(self) -> None:
        self.store.mood = "well"
        if self._life is None:
            self._start()

    def compact(self, dies_in: int = -1) -> None:
        self._job(dies_in, lambda: compact(self._jobs, self.world))

    def erase(self, install: str, dies_in: int = -1) -> None:
        """Erase an install; the fleet goes on while the job waits between its two passes."""
        self.erased.add(install)
        self._job(dies_in, lambda: erase(self._jobs, install, self.world, pause=self.world.run))

    def _job(self, dies_in: int, work: Any) -> None:
        if self._busy:
            return
        self._busy, self._jobs.dies_in = True, dies_in
        try:
            self.world.note("lab", "job", work())
        except DeathError:
            self.world.note("lab", "job died")
        except BusyError:
            self.world.note("lab", "another job has the store, or died with it")
        finally:
            self._busy = False

    def finish(self) -> None:
        """Run jobs again that may have died, once their lease has ended."""
        self.clear_gap()
        self.world.run(LEASE_S)
        for install in sorted(self.erased):
            self.erase(install)
        self.compact()

    def close(self) -> None:
        self._stop()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _start(self) -> None:
        self._app = create_app(self.store, TOKEN, self.world, self.limits)
        self._life = self._app.router.lifespan_context(self._app)
        self._loop.run_until_complete(self._life.__aenter__())

    def _stop(self) -> None:
        if self._life is not None:
            self._loop.run_until_complete(self._life.__aexit__(None, None, None))
            self._life = None


async def _call(app: Any, body: bytes, headers: Mapping[str, str]) -> Response:
    """Make one request of an ASGI application."""
    sent = {"content-length": str(len(body)), **headers, "authorization": f"Bearer {TOKEN}"}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/events", "raw_path": b"/v1/events", "query_string": b"", "server": ("lab", 80),
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
    }  # fmt: skip
    heard: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        heard.append(message)

    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in heard[1:])
    return Response(
        heard[0]["status"], {k.decode(): v.decode() for k, v in heard[0]["headers"]}, content
    )
