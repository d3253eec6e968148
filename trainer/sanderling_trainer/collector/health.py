"""The endpoints for operating a collector: health, readiness, metrics, OpenAPI."""

from __future__ import annotations

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sanderling_trainer.collector.metrics import Metrics
from sanderling_trainer.collector.openapi import DOCUMENT
from sanderling_trainer.collector.store_probe import StoreProbe


class HealthEndpoints:
    """Endpoints that need no token: expose them in your own network only."""

    def __init__(self, probe: StoreProbe, metrics: Metrics) -> None:
        self._probe = probe
        self._metrics = metrics

    async def health(self, request: Request) -> Response:
        """Return 200: the process lives."""
        return JSONResponse({"status": "ok"})

    async def readiness(self, request: Request) -> Response:
        """Return 200 if the store is writable, or was a few seconds ago, else 503."""
        if await self._probe.is_writable():
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "the store fails"}, 503)

    async def metrics(self, request: Request) -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, request: Request) -> Response:
        """Return the OpenAPI document."""
        return JSONResponse(DOCUMENT)
