"""The peer: a plain Starlette endpoint that appends JSON lines to a file and flushes it.

It decompresses and parses the same batches, but does not validate or deduplicate, and gives no
verdicts.

    python -m bench.collecting.peer FOLDER PORT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from threading import Lock
from typing import Any

import uvicorn
import zstandard
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

file = (Path(sys.argv[1]) / "events.jsonl").open("ab")
lock = Lock()


def store(events: list[dict[str, Any]]) -> None:
    """Append events and flush the file."""
    with lock:
        file.write("".join(json.dumps(event) + "\n" for event in events).encode())
        file.flush()
        os.fsync(file.fileno())


async def post_events(request: Request) -> JSONResponse:
    """Store one batch."""
    lines = zstandard.ZstdDecompressor().decompress(await request.body()).splitlines()
    events = [json.loads(line) for line in lines]
    await run_in_threadpool(store, events)
    return JSONResponse({"stored": len(events)})


app = Starlette(
    routes=[
        Route("/v1/events", post_events, methods=["POST"]),
        Route("/healthz", lambda _: JSONResponse({})),
    ]
)
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
