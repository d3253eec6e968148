"""One server in its own process, behind a meter that counts requests and fails a share of them.

    servers.py KIND FOLDER PORT SHARE

Half of the failing requests never reach the server, the other half loses only the answer; the
client sees 503 for both.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bench.uploading.clients import TOKEN


class Meter:
    """Counts requests and the bytes of their bodies, and answers the counts at /meter."""

    def __init__(self, app: Any, share: float) -> None:
        self.app = app
        self.share = share
        self.rng = random.Random(0)
        self.requests = 0
        self.bytes = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Forward a request, refuse it, or drop its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/meter":
            await JSONResponse({"requests": self.requests, "bytes": self.bytes})(
                scope, receive, send
            )
        else:
            await self._meter(scope, receive, send)

    async def _meter(self, scope: Any, receive: Any, send: Any) -> None:
        body = await Request(scope, receive).body()
        self.requests += 1
        self.bytes += len(body)
        message = {"type": "http.request", "body": body, "more_body": False}

        async def replay() -> Any:
            return message

        draw = self.rng.random()
        if draw >= self.share:
            await self.app(scope, replay, send)
            return
        if draw >= self.share / 2:
            await self.app(scope, replay, _drop)
        await Response(status_code=503)(scope, replay, send)


async def _drop(message: Any) -> None:
    pass


def sanderling(folder: Path) -> Any:
    """Return Sanderling's collector, which validates each event and answers when it is durable."""
    from sanderling_trainer.collector.server import create_app

    return create_app(str(folder), TOKEN)


def plain(folder: Path) -> Any:
    """Return an endpoint that appends lines, flushes, and answers."""
    file, lock = (folder / "lines").open("ab"), threading.Lock()

    def append(body: bytes) -> None:
        with lock:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())

    async def events(request: Request) -> Response:
        await asyncio.to_thread(append, await request.body())
        return Response(status_code=204)

    return Starlette(routes=[Route("/v1/events", events, methods=["POST"])])


def opentelemetry(folder: Path) -> Any:
    """Return a receiver that decodes log records, and stores only their ids, unflushed, for
    counting.
    """
    import gzip

    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    file = (folder / "lines").open("ab", buffering=0)

    async def logs(request: Request) -> Response:
        export = ExportLogsServiceRequest.FromString(gzip.decompress(await request.body()))
        for resource in export.resource_logs:
            for scope in resource.scope_logs:
                ids = (json.loads(record.body.string_value)["id"] for record in scope.log_records)
                file.write(b"".join(json.dumps({"id": id}).encode() + b"\n" for id in ids))
        return Response(status_code=200, media_type="application/x-protobuf")

    return Starlette(routes=[Route("/v1/logs", logs, methods=["POST"])])


KINDS = {"sanderling": sanderling, "plain": plain, "opentelemetry": opentelemetry}

if __name__ == "__main__":
    kind, folder, port, share = sys.argv[1:]
    app = Meter(KINDS[kind](Path(folder)), float(share))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error")
