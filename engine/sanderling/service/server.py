"""Runs a service on a socket until SIGTERM: the requests in progress are answered, then the engine
is closed, so that all that was accepted is on the disk."""

from __future__ import annotations

import gc
import os
import signal
import socket
import stat
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn

from sanderling.engine import Engine
from sanderling.service.app import Service
from sanderling.service.connections import limited_connection
from sanderling.service.limits import Limits

HOST = "127.0.0.1"
"""Only this machine: there is no TLS."""

FINISH_REQUESTS_S = 6
"""Seconds for the requests in progress after SIGTERM; whole, because uvicorn expects that."""

CLOSE_S = 3.0
"""Seconds for the disk after that. Both are within the ten that `docker stop` gives."""

BACKLOG = 128


def listen_on_path(path: Path, *, for_everybody: bool) -> socket.socket:
    """Return a listening Unix socket: for this user alone, or for everybody who has a token.

    Raises `OSError` where a process listens there already, or the file is no socket.
    """
    if path.exists():
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(f"{path}: expected a socket or nothing, found another file; move it away")
        if _is_alive(path):
            raise OSError(f"{path}: expected no service there, found one; stop it first")
        path.unlink()  # of a process that was killed
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        # Nobody can connect before it listens.
        path.chmod(0o666 if for_everybody else 0o600)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(f"{path}: expected a path for a socket: {error.strerror or error}") from error
    return listener


def listen_on_port(port: int) -> socket.socket:
    """Return a listening socket of the loopback interface; port 0 is any free one."""
    # asyncio turns off Nagle's algorithm, which delays answers by 40 ms, only where the protocol is
    # named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or error
        raise OSError(
            f"{HOST} port {port}: expected a port to listen on: {reason}; choose another"
        ) from error
    return listener


def make_server(engine: Engine, token: str | None, limits: Limits) -> uvicorn.Server:
    """Return a server over an engine, which the caller closes when it has run."""
    config = uvicorn.Config(
        Service(engine, token, limits),
        http=limited_connection(limits),
        ws="none",
        lifespan="off",
        timeout_keep_alive=limits.idle_s,
        timeout_graceful_shutdown=FINISH_REQUESTS_S,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    return uvicorn.Server(config)


def warm_up(engine: Engine) -> None:
    """Load what the first recommendation would wait for."""
    engine.warm_up()
    # The catalog lives as long as the process: a full collection would pause requests for it.
    gc.collect()
    gc.freeze()


def run(engine: Engine, listener: socket.socket, token: str | None) -> None:
    """Serve until SIGTERM or SIGINT, then close the engine; the caller's signal handlers stay."""
    server = make_server(engine, token, Limits())

    def stop(number: int, frame: FrameType | None) -> None:
        # uvicorn has handlers of its own while it runs, and passes the signal on afterwards.
        server.should_exit = True

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        server.run(sockets=[listener])
    finally:
        engine.close(CLOSE_S)
        for number, handler in before.items():
            signal.signal(number, handler)


def remove_socket(path: Path) -> None:
    """Remove the file of a socket that this process listened on."""
    with suppress(OSError):
        path.unlink()


def _is_alive(path: Path) -> bool:
    """Return whether a process listens on a socket's file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True
