"""The collector: takes batches from devices and answers when they are durable. Refuses to know users and models.

Each check runs before the next costs anything: token, declared length, streamed length, unpacking under a cap, depth
and schema, semantics. Requests that wait together are committed together, in one segment.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from zlib import crc32

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sanderling.clock import Clock, SystemClock
from sanderling.contract import events as wire
from sanderling.contract.events import Verdict
from sanderling.errors import EventError
from sanderling_trainer.data.segments import FOLDER, line
from sanderling_trainer.fleet import segments
from sanderling_trainer.fleet.segments import Files, open_files

DEAD = "dead"
MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_REQUESTS = 256
MAX_WAITING_BYTES = 64 * 1024 * 1024
BODY_TIMEOUT_S = 30.0
RETRY_AFTER_S = 5
REMEMBERED = 200_000


class RefusalError(Exception):
    """A request that gets no verdicts: its status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass
class Batch:
    """One request after its checks: lines to store, dead letters, and the verdicts to give once both are durable."""

    verdicts: list[Verdict] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    dead: list[bytes] = field(default_factory=list)
    bodies: dict[str, int] = field(default_factory=dict)

    def size(self) -> int:
        """Return the bytes to be stored."""
        return sum(map(len, self.lines)) + sum(map(len, self.dead))


class _Named(msgspec.Struct):
    id: str


class Memory:
    """The ids of late, with a checksum of their bodies; spares the store most duplicates, and proves nothing."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bodies: dict[str, int] = {}

    def get(self, id: str) -> int | None:
        """Return the checksum of the body that came under this id, if remembered."""
        return self._bodies.get(id)

    def add(self, bodies: dict[str, int]) -> None:
        """Remember; the oldest ids make room."""
        self._bodies.update(bodies)
        for id in list(islice(self._bodies, max(0, len(self._bodies) - self._most))):
            del self._bodies[id]


class Committer:
    """Commits batches: while one segment is written, the next batches gather."""

    def __init__(self, files: Files, clock: Clock) -> None:
        self.memory = Memory(REMEMBERED)
        self._files, self._clock = files, clock
        self._waiting: list[tuple[Batch, asyncio.Future[None]]] = []
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._closing = False

    async def commit(self, batch: Batch) -> None:
        """Return when the batch is durable; raise `OSError` when it is not, `RefusalError` when too much waits."""
        if not batch.lines and not batch.dead:
            return
        if self._waiting_bytes + batch.size() > MAX_WAITING_BYTES:
            raise RefusalError(503, "too many events wait to be stored")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, done))
        self._waiting_bytes += batch.size()
        self._wake.set()
        await done

    async def run(self) -> None:
        """Commit groups until closed and nothing waits."""
        while not self._closing or self._waiting:
            await self._wake.wait()
            self._wake.clear()
            group, self._waiting = self._waiting, []
            if group:
                await self._commit_group(group)

    async def _commit_group(self, group: list[tuple[Batch, asyncio.Future[None]]]) -> None:
        try:
            await asyncio.to_thread(self._write, [batch for batch, _ in group])
        except Exception as error:  # every waiting request must be answered, whatever the store did
            _resolve(group, error)
        else:
            for batch, _ in group:
                self.memory.add(batch.bodies)
            _resolve(group, None)
        finally:
            self._waiting_bytes -= sum(batch.size() for batch, _ in group)

    def _write(self, batches: list[Batch]) -> None:
        for folder, lines in (
            (DEAD, [row for batch in batches for row in batch.dead]),
            (FOLDER, [row for batch in batches for row in batch.lines]),
        ):
            if lines:
                segments.write(self._files, folder, lines, self._clock)

    def close(self) -> None:
        """Let `run` end once everything that waits is committed."""
        self._closing = True
        self._wake.set()


def _resolve(group: list[tuple[Batch, asyncio.Future[None]]], error: Exception | None) -> None:
    for _, done in group:
        if done.cancelled():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


class Collector:
    """The two endpoints."""

    def __init__(self, committer: Committer, token: str | None, clock: Clock) -> None:
        self._committer, self._token, self._clock = committer, token, clock
        self._requests = 0

    async def health(self, request: Request) -> Response:
        """Say that the server runs."""
        return JSONResponse({"status": "ok"})

    async def events(self, request: Request) -> Response:
        """Take one batch and give one verdict per event, after all of them are durable."""
        try:
            self._admit(request)
            self._requests += 1
            try:
                return await self._answer(request)
            finally:
                self._requests -= 1
        except RefusalError as refusal:
            headers = {"retry-after": str(RETRY_AFTER_S)} if refusal.status == 503 else {}
            return JSONResponse({"error": refusal.reason}, refusal.status, headers)

    def _admit(self, request: Request) -> None:
        """Check what costs nothing: the token, the load, the declared length and the encoding."""
        given = request.headers.get("authorization", "")
        if self._token is not None and not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            raise RefusalError(401, "expected a known bearer token")
        if self._requests >= MAX_REQUESTS:
            raise RefusalError(503, "too many requests at once")
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit() or int(declared) > MAX_BODY_BYTES:
            raise RefusalError(413, f"expected a body of at most {MAX_BODY_BYTES} bytes, found {declared} declared")
        if request.headers.get("content-encoding", "") != "zstd":
            raise RefusalError(415, "expected the content-encoding zstd")

    async def _answer(self, request: Request) -> Response:
        body = await _read(request)
        sent_at = _sent_at(request.headers.get("sent-at", ""))
        batch = await asyncio.to_thread(self._check, body, sent_at)
        try:
            await self._committer.commit(batch)
        except OSError as error:
            raise RefusalError(503, f"could not store the batch: {error.strerror or 'the store failed'}") from error
        return Response(msgspec.json.encode({"verdicts": batch.verdicts}), media_type="application/json")

    def _check(self, body: bytes, sent_at: int | None) -> Batch:
        try:
            lines = list(wire.unpack(body))
        except EventError as error:
            raise RefusalError(413 if "at most" in str(error) else 400, str(error)) from error
        if len(lines) > wire.MAX_BATCH_EVENTS:
            raise RefusalError(413, f"expected at most {wire.MAX_BATCH_EVENTS} events, found {len(lines)}")
        batch, now = Batch(), self._clock.wall_ms()
        for number, data in enumerate(lines, 1):
            self._judge(batch, number, data, now, sent_at)
        return batch

    def _judge(self, batch: Batch, number: int, data: bytes, now: int, sent_at: int | None) -> None:
        """Give one event its verdict; a line that names no id can get none, so it refuses the batch."""
        try:
            event = wire.decode(data)
            id, fault = event.id, wire.semantic_fault(event)
        except EventError as error:
            id, fault = _name(data, number), str(error)
        body = crc32(data)
        known = batch.bodies.get(id, self._committer.memory.get(id))
        if fault is None and known is not None and known != body:
            fault = "conflict: another event has this id"
        if fault is not None:
            batch.dead.append(_dead(data, now, fault))
            batch.verdicts.append(Verdict(id, "rejected", fault[:500]))
        elif known is not None:
            batch.verdicts.append(Verdict(id, "duplicate"))
        else:
            batch.bodies[id] = body
            batch.lines.append(line(data, now, sent_at))
            batch.verdicts.append(Verdict(id, "ok"))


async def _read(request: Request) -> bytes:
    """Read the body up to the cap and for no longer than `BODY_TIMEOUT_S`, whatever was declared."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise RefusalError(413, f"expected a body of at most {MAX_BODY_BYTES} bytes, found more")
    except TimeoutError as error:
        raise RefusalError(408, f"expected a whole body within {BODY_TIMEOUT_S:g} s") from error
    except ClientDisconnect as error:
        raise RefusalError(400, "the client went away") from error
    return bytes(body)


def _sent_at(value: str) -> int | None:
    """Return the header's wall ms since 1970, or None when it is absent or absurd."""
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 15 else None


def _name(data: bytes, number: int) -> str:
    try:
        return msgspec.json.decode(data[: wire.MAX_LINE], type=_Named).id[:64]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RefusalError(400, f"line {number}: expected an event with an id: {error}") from error


def _dead(data: bytes, now: int, reason: str) -> bytes:
    text = data[: wire.MAX_LINE].decode("utf-8", "backslashreplace")
    return msgspec.json.encode({"received_at": now, "reason": reason, "line": text})


def create_app(store: str, token: str | None = None) -> Starlette:
    """Build the server over a local folder or an object store's URL; without a token everybody may send."""
    clock = SystemClock()
    committer = Committer(open_files(store), clock)
    collector = Collector(committer, token, clock)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(committer.run())
        yield
        committer.close()
        await running

    routes = [
        Route("/v1/events", collector.events, methods=["POST"]),
        Route("/v1/health", collector.health, methods=["GET"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def serve(store: str, host: str = "127.0.0.1", port: int = 8080, token: str | None = None) -> None:
    """Serve until SIGTERM, then answer what is under way and stop within ten seconds."""
    import uvicorn

    uvicorn.run(create_app(store, token), host=host, port=port, timeout_graceful_shutdown=10, log_level="warning")
