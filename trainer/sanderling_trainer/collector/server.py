"""The collector: an HTTP server that answers batches of events when they are durable.

Cheap checks come first: token, numbers of requests, size and encoding of the body, then those of
`validation`, the tombstones, and the rate. Batches that wait at the same time are stored together,
in one segment.
"""

from __future__ import annotations

import asyncio
import math
import re
import resource
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import compress
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sanderling.events.schema import BatchResponse
from sanderling.runtime.clock import Clock, SystemClock
from sanderling_trainer.collector.authentication import Authenticator
from sanderling_trainer.collector.cross_origin import cross_origin
from sanderling_trainer.collector.decompression import lines_of
from sanderling_trainer.collector.group_commit import GroupCommitter
from sanderling_trainer.collector.health import HealthEndpoints
from sanderling_trainer.collector.limits import Limits, RefusalError
from sanderling_trainer.collector.lookup_cache import LookupCache
from sanderling_trainer.collector.metrics import Metrics
from sanderling_trainer.collector.rate_limit import RateLimit
from sanderling_trainer.collector.request_body import read_body
from sanderling_trainer.collector.store_probe import StoreProbe
from sanderling_trainer.collector.token_use import TokenUse
from sanderling_trainer.collector.validation import validate_batch
from sanderling_trainer.event_log.object_store import ObjectStore, open_store
from sanderling_trainer.event_log.tombstones import rotation_file, tombstone_file

FINISH_REQUESTS_S = 6
"""Seconds for the requests in progress after SIGTERM; whole, because uvicorn expects that."""

FINISH_COMMITS_S = 2.0
"""Seconds for the commits after that. Both, with two in reserve, are the ten of `serve`: the time
that `docker stop` gives."""

KEEP_ALIVE_S = 75
"""Longer than ingresses keep idle connections (60 s), so that an ingress never uses one that is
just being closed."""

FLAG_LOOKUPS = 32
"""Threads that look up tombstones and rotation requests: two batches of the most installs."""

OPEN_FILES = 16_384
"""Connections of an ingress, each an open file, with room for the store's files."""


class Collector:
    """The endpoint for events; `token` is one that all devices share, beside those of the store."""

    def __init__(self, store: ObjectStore, token: str | None, clock: Clock, limits: Limits) -> None:
        self.metrics = Metrics()
        self.probe = StoreProbe(store, clock)
        self._committer = GroupCommitter(store, clock, limits, self.metrics)
        self._clock = clock
        self._limits = limits
        self._authenticator = Authenticator(store, token, clock, limits, self.probe)
        self._install_flags = LookupCache(store, clock, FLAG_LOOKUPS)
        per_s = f"{limits.events_s:g} events/s of an install"
        self._rate = RateLimit(clock, limits.events_s, limits.burst, per_s)
        self._tokens = TokenUse(store, clock, limits)
        self.metrics.registry.register(self._tokens)
        self._requests = 0

    async def post_events(self, request: Request) -> Response:
        """Store a batch; respond with a verdict for each event when all of them are durable.

        Never raises for a request that cannot be stored: the status is then 400 to 503, and the
        body {"error": reason}.
        """
        with (
            self.metrics.request_seconds.time(),
            self.metrics.requests_in_progress.track_inprogress(),
        ):
            response = await self._respond(request)
        self.metrics.requests.labels(response.status_code).inc()
        return response

    def close(self) -> None:
        """Commit what is pending, and start no further lookups."""
        self._committer.close(FINISH_COMMITS_S)
        self._authenticator.close()
        self._install_flags.close()
        self._tokens.close()

    async def _respond(self, request: Request) -> Response:
        try:
            token = await self._authenticator.check(request.headers.get("authorization", ""))
            with self._tokens.request(token):
                answer = await self._store_within_request_limit(request, token)
        except RefusalError as refusal:
            return _error_response(refusal)
        except OSError as error:
            reason = f"could not store the batch: {error.strerror or 'the store failed'}"
            return _error_response(RefusalError(503, reason, self._limits.retry_after_s))

        for verdict, events in Counter(verdict.verdict for verdict in answer.verdicts).items():
            self.metrics.events.labels(verdict).inc(events)
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def _store_within_request_limit(
        self, request: Request, token: str | None
    ) -> BatchResponse:
        if self._requests >= self._limits.requests:
            raise RefusalError(503, "too many requests at once", self._limits.retry_after_s)
        self._requests += 1
        try:
            return await self._store_batch(request, token)
        finally:
            self._requests -= 1

    async def _store_batch(self, request: Request, token: str | None) -> BatchResponse:
        body, encoding = await read_body(request, self._limits)
        self.metrics.received_bytes.inc(len(body))
        sent_at = _parse_sent_at(request.headers.get("sent-at", ""))
        recent_ids = self._committer.recent_ids
        lines = lines_of(body, encoding)
        batch = validate_batch(lines, self._clock.wall_ms(), sent_at, recent_ids)

        n_installs = len(batch.installs)
        if n_installs > self._limits.installs:
            reason = f"expected at most {self._limits.installs} installs, found {n_installs}"
            raise RefusalError(413, reason)
        erased = await self._flagged(batch.installs, tombstone_file)
        if erased:
            raise RefusalError(410, f"install {erased[0]} was erased; delete its events")

        self._rate.charge(batch.installs)
        try:
            await self._tokens.admit(token, batch.installs)
            rotate = await self._flagged(batch.installs, rotation_file)
            await self._committer.commit(batch)
        except BaseException:  # also when the request is cancelled
            self._rate.refund(batch.installs)
            raise
        self._tokens.count(token, batch.installs, len(batch.verdicts))
        return BatchResponse(batch.verdicts, rotate)

    async def _flagged(self, installs: Iterable[str], flag_file: Callable[[str], str]) -> list[str]:
        """Return the installs whose flag file exists; all are looked up concurrently."""
        lookups = (self._install_flags.exists(flag_file(install)) for install in installs)
        return list(compress(installs, await asyncio.gather(*lookups)))


def _error_response(refusal: RefusalError) -> Response:
    headers = {}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(refusal.retry_after_s))
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": refusal.reason}, refusal.status, headers)


def _parse_sent_at(value: str) -> int | None:
    """Return the header's wall ms since 1970; None when absent, negative or after the year 2286."""
    return int(value) if re.fullmatch(r"[0-9]{1,13}", value) else None


def create_app(
    store: str | ObjectStore,
    token: str | None = None,
    clock: Clock | None = None,
    limits: Limits | None = None,
    *,
    origins: Sequence[str] = (),
) -> Starlette:
    """Return the server over a store, a local folder, or an object store's URL.

    Pages of `origins`, such as https://shop.example, may post events. Raises `ValueError` for what
    is no origin.
    """
    middleware = cross_origin(origins)
    object_store = open_store(store) if isinstance(store, str) else store
    collector = Collector(object_store, token, clock or SystemClock(), limits or Limits())
    health = HealthEndpoints(collector.probe, collector.metrics)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        collector.close()

    routes = [
        Route(
            "/v1/events",
            collector.post_events,
            methods=["POST", "OPTIONS"] if middleware else ["POST"],  # OPTIONS is the preflight
            middleware=middleware,
        ),
        Route("/healthz", health.health, methods=["GET"]),
        Route("/readyz", health.readiness, methods=["GET"]),
        Route("/metrics", health.metrics, methods=["GET"]),
        Route("/openapi.json", health.openapi, methods=["GET"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def uvicorn_options() -> dict[str, Any]:
    """Return the options for uvicorn.

    The ingress limits idle connections and slow heads. uvicorn's `limit_concurrency` would count
    idle connections and refuse all others without Retry-After; its h11 parser limits heads, but
    takes more time than httptools.
    """
    return {
        "http": "httptools",
        "timeout_keep_alive": KEEP_ALIVE_S,
        "timeout_graceful_shutdown": FINISH_REQUESTS_S,
        "log_level": "warning",
        "access_log": False,
    }


def serve(
    store: str,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    origins: Sequence[str] = (),
) -> None:
    """Serve until SIGTERM, then answer the requests in progress and stop within ten seconds."""
    raise_file_limit()
    app = create_app(store, token, origins=origins)
    uvicorn.run(app, host=host, port=port, **uvicorn_options())


def raise_file_limit() -> None:
    """Raise the limit of open files if allowed: an ingress's connections use up the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
