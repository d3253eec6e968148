"""The collector: takes batches from devices and answers when they are durable. Refuses to know users and models.

Each check runs before the next costs anything: token, load, declared length, encoding, streamed length, then those of
`judging`, the tombstones, and the rate. Requests that wait together are committed together, in one segment.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import compress
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sanderling.clock import Clock, SystemClock
from sanderling.contract.events import Answer
from sanderling_trainer.data.marks import renewal, tombstone
from sanderling_trainer.data.store import Store, open_store
from sanderling_trainer.fleet.bodies import Bodies
from sanderling_trainer.fleet.callers import Callers
from sanderling_trainer.fleet.committer import Committer
from sanderling_trainer.fleet.connections import protocol
from sanderling_trainer.fleet.judging import judge
from sanderling_trainer.fleet.known import Known
from sanderling_trainer.fleet.limits import Limits, Rate, RefusalError
from sanderling_trainer.fleet.metrics import Metrics
from sanderling_trainer.fleet.probe import Probe
from sanderling_trainer.fleet.watch import Watch

FINISH_REQUESTS_S = 6
FINISH_COMMITS_S = 2.0
MARKS_AT_ONCE = 32


class Collector:
    """The endpoint of events; a shared `token` is valid beside those that the store has."""

    def __init__(self, store: Store, token: str | None, clock: Clock, limits: Limits) -> None:
        self.metrics, self.probe = Metrics(), Probe(store, clock)
        self.committer = Committer(store, clock, limits, self.metrics)
        self._token, self._clock, self._limits = token, clock, limits
        self._callers, self._marks = Callers(store, clock, limits), Known(store, clock, MARKS_AT_ONCE)
        self._bodies, self._rate = Bodies(limits), Rate(limits, clock)
        self._requests = 0

    async def events(self, request: Request) -> Response:
        """Take one batch and give one verdict per event, after all of them are durable."""
        with self.metrics.request_seconds.time(), self.metrics.under_way.track_inprogress():
            answer = await self._answer(request)
        self.metrics.requests.labels(answer.status_code).inc()
        return answer

    def close(self) -> None:
        """Commit what waits, and look nothing more up."""
        self.committer.close(FINISH_COMMITS_S)
        self._callers.close()
        self._marks.close()

    async def _answer(self, request: Request) -> Response:
        try:
            await self._identify(request.headers.get("authorization", ""))
            answer = await self._counted(request)
        except RefusalError as refusal:
            wait = {} if refusal.wait_s is None else {"retry-after": str(math.ceil(refusal.wait_s))}
            challenge = {"www-authenticate": "Bearer"} if refusal.status == 401 else {}
            return JSONResponse({"error": refusal.reason}, refusal.status, wait | challenge)
        except OSError as error:
            reason = f"could not store the batch: {error.strerror or 'the store failed'}"
            return JSONResponse({"error": reason}, 503, {"retry-after": str(math.ceil(self._limits.retry_after_s))})
        for verdict, events in Counter(verdict.verdict for verdict in answer.verdicts).items():
            self.metrics.events.labels(verdict).inc(events)
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def _identify(self, authorization: str) -> None:
        """Refuse who has no valid token; a store that fails may not know of one, such as a bucket that is gone."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise RefusalError(401, "expected a bearer token")
        if self._token is not None and hmac.compare_digest(token.encode(), self._token.encode()):
            return
        if await self._callers.may_send(token):
            return
        if not await self.probe.works():
            raise RefusalError(503, "the store fails", self._limits.retry_after_s)
        raise RefusalError(401, "expected a known bearer token")

    async def _counted(self, request: Request) -> Answer:
        """Take the batch as one of those that are under way."""
        self._requests += 1
        try:
            self._admit(request)
            return await self._take(request)
        finally:
            self._requests -= 1

    def _admit(self, request: Request) -> None:
        """Check what is known before the body: the load, the declared length and the encoding."""
        if self._requests > self._limits.requests and not self._bodies.end_slowest():
            raise RefusalError(503, "too many requests at once", self._limits.retry_after_s)
        declared, most = request.headers.get("content-length", "0"), self._limits.body_bytes
        if not declared.isdecimal() or int(declared) > most:
            raise RefusalError(413, f"expected a body of at most {most} bytes, found {declared} declared")
        if request.headers.getlist("content-encoding") != ["zstd"]:
            raise RefusalError(415, "expected the content-encoding zstd")

    async def _take(self, request: Request) -> Answer:
        body = await self._bodies.read(request)
        self.metrics.received_bytes.inc(len(body))
        sent_at = _sent_at(request.headers.get("sent-at", ""))
        batch = judge(body, self._clock.wall_ms(), sent_at, self.committer.memory)
        if len(batch.installs) > self._limits.installs:
            raise RefusalError(413, f"expected at most {self._limits.installs} installs, found {len(batch.installs)}")
        for install in await self._marked(batch.installs, tombstone):
            raise RefusalError(410, f"install {install} was erased; it is to forget everything")
        with self._rate.booked(batch.installs):
            renew = await self._marked(batch.installs, renewal)
            await self.committer.commit(batch)
        return Answer(batch.verdicts, renew)

    async def _marked(self, installs: Iterable[str], mark: Callable[[str], str]) -> list[str]:
        """Return those that have a mark; all are asked about at once."""
        found = await asyncio.gather(*(self._marks.has(mark(install)) for install in installs))
        return list(compress(installs, found))


def _sent_at(value: str) -> int | None:
    """Return the header's wall ms since 1970, or None when it is absent or makes no sense."""
    return int(value) if re.fullmatch(r"[0-9]{1,15}", value) else None


def create_app(
    store: str | Store, token: str | None = None, clock: Clock | None = None, limits: Limits | None = None
) -> Starlette:
    """Build the server over a store, or a local folder or an object store's URL."""
    place = open_store(store) if isinstance(store, str) else store
    clock, limits = clock or SystemClock(), limits or Limits()
    collector = Collector(place, token, clock, limits)
    watch = Watch(collector.probe, collector.metrics)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        collector.close()

    routes = [
        Route("/v1/events", collector.events, methods=["POST"]),
        Route("/healthz", watch.health, methods=["GET"]),
        Route("/readyz", watch.readiness, methods=["GET"]),
        Route("/metrics", watch.figures, methods=["GET"]),
        Route("/openapi.json", watch.document, methods=["GET"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def settings(limits: Limits) -> dict[str, Any]:
    """Return how uvicorn is to serve."""
    return {
        "http": protocol(limits),
        "timeout_graceful_shutdown": FINISH_REQUESTS_S,
        "log_level": "warning",
        "access_log": False,
    }


def serve(store: str, host: str = "127.0.0.1", port: int = 8080, token: str | None = None) -> None:
    """Serve until SIGTERM, then answer what is under way and stop within ten seconds."""
    limits = Limits()
    uvicorn.run(create_app(store, token, limits=limits), host=host, port=port, **settings(limits))
