"""The collector: takes batches of events from devices and answers when they are durable.

Each check runs before the next costs anything: token, load, declared length, encoding, streamed length, then those of
`judging`, the tombstones, and the rate. Requests that wait together are committed together, in one segment.
"""

from __future__ import annotations

import asyncio
import math
import re
import resource
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

from sanderling.events.schema import Answer
from sanderling.runtime.clock import Clock, SystemClock
from sanderling_trainer.collector.authentication import Authenticator
from sanderling_trainer.collector.group_commit import GroupCommitter
from sanderling_trainer.collector.health import HealthEndpoints
from sanderling_trainer.collector.limits import Limits, RefusalError
from sanderling_trainer.collector.lookup_cache import LookupCache
from sanderling_trainer.collector.metrics import Metrics
from sanderling_trainer.collector.rate_limit import RateLimit
from sanderling_trainer.collector.request_body import read_body
from sanderling_trainer.collector.store_probe import StoreProbe
from sanderling_trainer.collector.validation import judge
from sanderling_trainer.event_log.object_store import ObjectStore, open_store
from sanderling_trainer.event_log.tombstones import rotation, tombstone

FINISH_REQUESTS_S = 6
FINISH_COMMITS_S = 2.0
KEEP_ALIVE_S = 75  # longer than ingresses keep idle connections (60 s), so that they never use one that has just ended
MARKS_AT_ONCE = 32
OPEN_FILES = 16_384


class Collector:
    """The endpoint of events; a shared `token` is valid beside those that the store has."""

    def __init__(self, store: ObjectStore, token: str | None, clock: Clock, limits: Limits) -> None:
        self.metrics = Metrics()
        self.probe = StoreProbe(store, clock)
        self.committer = GroupCommitter(store, clock, limits, self.metrics)
        self._clock = clock
        self._limits = limits
        self._authenticator = Authenticator(store, token, clock, limits, self.probe)
        self._marks = LookupCache(store, clock, MARKS_AT_ONCE)
        self._rate = RateLimit(limits, clock)
        self._requests = 0

    async def events(self, request: Request) -> Response:
        """Take one batch and give one verdict per event, after all of them are durable."""
        with self.metrics.request_seconds.time(), self.metrics.under_way.track_inprogress():
            answer = await self._answer(request)
        self.metrics.requests.labels(answer.status_code).inc()
        return answer

    def close(self) -> None:
        """Commit what waits, and start no further lookups."""
        self.committer.close(FINISH_COMMITS_S)
        self._authenticator.close()
        self._marks.close()

    async def _answer(self, request: Request) -> Response:
        try:
            await self._authenticator.check(request.headers.get("authorization", ""))
            answer = await self._take_in_turn(request)
        except RefusalError as refusal:
            return _refused(refusal)
        except OSError as error:
            reason = f"could not store the batch: {error.strerror or 'the store failed'}"
            return _refused(RefusalError(503, reason, self._limits.retry_after_s))

        for verdict, events in Counter(verdict.verdict for verdict in answer.verdicts).items():
            self.metrics.events.labels(verdict).inc(events)
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def _take_in_turn(self, request: Request) -> Answer:
        if self._requests >= self._limits.requests:
            raise RefusalError(503, "too many requests at once", self._limits.retry_after_s)
        self._requests += 1
        try:
            return await self._take(request)
        finally:
            self._requests -= 1

    async def _take(self, request: Request) -> Answer:
        body = await read_body(request, self._limits)
        self.metrics.received_bytes.inc(len(body))
        sent_at = _sent_at(request.headers.get("sent-at", ""))
        batch = judge(body, self._clock.wall_ms(), sent_at, self.committer.memory)

        if len(batch.installs) > self._limits.installs:
            raise RefusalError(
                413,
                f"expected at most {self._limits.installs} installs, found {len(batch.installs)}",
            )
        for install in await self._marked(batch.installs, tombstone):
            raise RefusalError(410, f"install {install} was erased; it is to forget everything")

        self._rate.take(batch.installs)
        try:
            rotate = await self._marked(batch.installs, rotation)
            await self.committer.commit(batch)
        except BaseException:  # a cancelled request too was not stored
            self._rate.give_back(batch.installs)
            raise
        return Answer(batch.verdicts, rotate)

    async def _marked(self, installs: Iterable[str], mark: Callable[[str], str]) -> list[str]:
        """Return those that have a mark; all are asked about at once."""
        found = await asyncio.gather(*(self._marks.has(mark(install)) for install in installs))
        return list(compress(installs, found))


def _refused(refusal: RefusalError) -> Response:
    headers = {}
    if refusal.wait_s is not None:
        headers["retry-after"] = str(math.ceil(refusal.wait_s))
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": refusal.reason}, refusal.status, headers)


def _sent_at(value: str) -> int | None:
    """Return the header's wall ms since 1970; None when it is absent, negative or beyond the year 2286."""
    return int(value) if re.fullmatch(r"[0-9]{1,13}", value) else None


def create_app(
    store: str | ObjectStore,
    token: str | None = None,
    clock: Clock | None = None,
    limits: Limits | None = None,
) -> Starlette:
    """Build the server over a store, or a local folder or an object store's URL."""
    place = open_store(store) if isinstance(store, str) else store
    clock, limits = clock or SystemClock(), limits or Limits()
    collector = Collector(place, token, clock, limits)
    watch = HealthEndpoints(collector.probe, collector.metrics)

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


def settings() -> dict[str, Any]:
    """Return how uvicorn is to serve.

    Silent connections and heads are bounded by the ingress. uvicorn's `limit_concurrency` would count silent
    connections and then refuse all others, without Retry-After; h11 bounds heads, but takes more time than httptools.
    """
    return {
        "http": "httptools",
        "timeout_keep_alive": KEEP_ALIVE_S,
        "timeout_graceful_shutdown": FINISH_REQUESTS_S,
        "log_level": "warning",
        "access_log": False,
    }


def serve(store: str, host: str = "127.0.0.1", port: int = 8080, token: str | None = None) -> None:
    """Serve until SIGTERM, then answer what is under way and stop within ten seconds."""
    _raise_file_limit()
    uvicorn.run(create_app(store, token), host=host, port=port, **settings())


def _raise_file_limit() -> None:
    """Let the process open more files, as far as it may: with 1,024 an ingress with many connections fills them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
