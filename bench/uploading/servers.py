"""One server in a process of its own, behind a meter that counts what comes in and fails a share of the requests.

    servers.py KIND FOLDER PORT SHARE

Of the failing requests one half is refused before the server sees them, the other half loses only its answer; both look
like 503 to the client.
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
    """Counts requests and the bytes of their bodies, and says so under /meter."""

    def __init__(self, app: Any, share: float) -> None:
        self.app, self.share, self.rng = app, share, random.Random(0)
        self.requests = self.bytes = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on, refuse, or swallow the answer."""
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
        self.requests, self.bytes = self.requests + 1, self.bytes + len(body)
        drawn, whole = self.rng.random(), {"type": "http.request", "body": body, "more_body": False}

        async def again() -> Any:
            return whole

        if drawn >= self.share:
            await self.app(scope, again, send)
            return
        if drawn >= self.share / 2:
            await self.app(scope, again, _swallow)
        await Response(status_code=503)(scope, again, send)


async def _swallow(message: Any) -> None:
    pass


def sanderling(folder: Path) -> Any:
    """Our collector: checks each event, answers when a segment is durable."""
    from sanderling_trainer.collector.server import create_app

    return create_app(str(folder), TOKEN)


def plain(folder: Path) -> Any:
    """What one would write: append the lines, fsync, answer."""
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
    """A receiver that decodes and counts, and stores nothing but the ids, unflushed, for this benchmark."""
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
