"""What those who run a collector ask it: does it live, is it ready, how is it doing. Refuses to know events."""

from __future__ import annotations

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sanderling_trainer.collector import openapi
from sanderling_trainer.collector.metrics import Metrics
from sanderling_trainer.collector.store_probe import StoreProbe


class HealthEndpoints:
    """The endpoints without a token: let only your own network reach them."""

    def __init__(self, probe: StoreProbe, metrics: Metrics) -> None:
        self._probe, self._metrics = probe, metrics

    async def health(self, request: Request) -> Response:
        """Say that the server runs."""
        return JSONResponse({"status": "ok"})

    async def readiness(self, request: Request) -> Response:
        """Say whether the store took a file just now, or a few seconds ago."""
        works = await self._probe.works()
        return JSONResponse({"status": "ok" if works else "the store fails"}, 200 if works else 503)

    async def figures(self, request: Request) -> Response:
        """Return the metrics."""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def document(self, request: Request) -> Response:
        """Return the OpenAPI document."""
        return JSONResponse(openapi.DOCUMENT)
