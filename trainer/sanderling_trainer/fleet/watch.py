"""What those who run a collector ask it: does it live, is it ready, how is it doing. Refuses to know events."""

from __future__ import annotations

import asyncio
import os

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sanderling.clock import Clock
from sanderling_trainer.data.store import Store
from sanderling_trainer.fleet import openapi
from sanderling_trainer.fleet.metrics import Metrics

PROBE = "probe"
PROBE_AGE_S = 5.0
PROBE_BYTES = 64 * 1024  # a full disk takes an empty file, and one that packs may take zeros


class Watch:
    """The endpoints without a token: let only your own network reach them."""

    def __init__(self, store: Store, metrics: Metrics, clock: Clock) -> None:
        self._store, self._metrics, self._clock = store, metrics, clock
        self._probed_at: int | None = None
        self._ready = False

    async def health(self, request: Request) -> Response:
        """Say that the server runs."""
        return JSONResponse({"status": "ok"})

    async def readiness(self, request: Request) -> Response:
        """Say whether the store took a file just now, or a few seconds ago."""
        now = self._clock.mono_ms()
        if self._probed_at is None or now - self._probed_at >= PROBE_AGE_S * 1000:
            self._probed_at = now
            self._ready = await asyncio.to_thread(self._probe)
        return JSONResponse({"status": "ok" if self._ready else "the store fails"}, 200 if self._ready else 503)

    async def figures(self, request: Request) -> Response:
        """Return the metrics."""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def document(self, request: Request) -> Response:
        """Return the OpenAPI document."""
        return JSONResponse(openapi.DOCUMENT)

    def _probe(self) -> bool:
        try:
            self._store.put(PROBE, os.urandom(PROBE_BYTES))
        except OSError:
            return False
        return True
