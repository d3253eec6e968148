"""A collector on the loopback interface, to which the devices of an example report."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import uvicorn

from sanderling_trainer.collector.server import create_app, uvicorn_options

TOKEN = "token-of-the-example"


def collector(store: Path) -> str:
    """Return the URL of a collector that writes to the folder `store` until the process ends."""
    server = uvicorn.Server(uvicorn.Config(create_app(str(store), TOKEN), **uvicorn_options()))
    port = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=server.run, kwargs={"sockets": [port]}, daemon=True).start()
    return f"http://127.0.0.1:{port.getsockname()[1]}/v1"
