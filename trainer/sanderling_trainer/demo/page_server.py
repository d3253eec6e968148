"""Serves the page that learns, a bundle and a collector from one origin on loopback.

`make page` writes the page into the folder `page` beside this module.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sanderling.bundle.manifest import MANIFEST
from sanderling.runtime.files import write_durably
from sanderling_trainer.collector.server import create_app, raise_file_limit, uvicorn_options

PAGE = Path(__file__).parent / "page"
HOST = "127.0.0.1"

INDEX = "index.html"
SMALL_BYTES = 2**20

HEADERS = (
    # Isolated pages have clocks of microseconds, and wasm threads.
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    # Everything is asked for again, and answered with 304 where it is the same.
    (b"cache-control", b"no-cache"),
)


def page_app(bundle: Path, store: Path, token: str, page: Path | None = None) -> Starlette:
    """Return the server of the page, of the files of `bundle` under /bundle, and of the collector
    under /v1, whose segments go to the folder `store`.

    page: the folder that `make page` wrote; the one beside this module unless given.

    Raises `FileNotFoundError` where the page was not built, or `bundle` is none.
    """
    page = page or PAGE
    if not (page / INDEX).is_file():
        raise FileNotFoundError(
            f"{page}: expected the page, found none; `make page` builds it, which needs Node 20"
        )
    if not (bundle / MANIFEST).is_file():
        raise FileNotFoundError(f"{bundle}: expected a bundle, found no {MANIFEST}")

    async def config(request: Request) -> JSONResponse:
        return JSONResponse({"bundle": "bundle/", "collector": "v1", "token": token})

    app = create_app(str(store), token)
    app.router.routes.extend(
        [
            Route("/config.json", config, methods=["GET"]),
            Mount("/bundle", StaticFiles(directory=bundle)),
            Mount("/", _SmallFiles(page)),
        ]
    )
    app.add_middleware(_WithHeaders)
    return app


class _SmallFiles:
    """Serves a folder whose small files are read once: the page asks for all of them at once.

    The folder must not change meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self._others = StaticFiles(directory=folder)
        self._files = {
            f"/{path.relative_to(folder).as_posix()}": path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.stat().st_size <= SMALL_BYTES
        }
        self._files["/"] = self._files[f"/{INDEX}"]
        self._tags = {
            name: f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            for name, content in self._files.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"]
        if name not in self._files:
            await self._others(scope, receive, send)
            return
        headers = {"etag": self._tags[name]}
        if Request(scope).headers.get("if-none-match") == self._tags[name]:
            await Response(status_code=304, headers=headers)(scope, receive, send)
            return
        kind = mimetypes.guess_type(INDEX if name == "/" else name)[0]
        response = Response(self._files[name], headers=headers, media_type=kind)
        await response(scope, receive, send)


class _WithHeaders:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def page_token(folder: Path) -> str:
    """Return the token of the pages served from a folder, which stays the same: a page that is off
    line keeps the one it has.
    """
    file = folder / "token"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(file, secrets.token_hex(16).encode())
    return file.read_text(encoding="ascii").strip()


def newest_release(releases: Path) -> Path | None:
    """Return the bundle with the highest release number that `sanderling demo` left in a folder."""
    found = {
        int(json.loads(file.read_bytes())["release"]): file.parent
        for file in releases.glob(f"*/{MANIFEST}")
    }
    return found[max(found)] if found else None


def serve(app: Starlette, port: int, on_start: Callable[[str], None]) -> None:
    """Serve on loopback until Ctrl-C; `on_start` gets the page's address. Port 0 is a free one."""

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                listener = self.servers[0].sockets[0]
                on_start(f"http://localhost:{listener.getsockname()[1]}/")

    raise_file_limit()
    # uvicorn raises the signal again when it has stopped; the caller has something to say then.
    with suppress(KeyboardInterrupt):
        Server(uvicorn.Config(app, host=HOST, port=port, **uvicorn_options())).run()
