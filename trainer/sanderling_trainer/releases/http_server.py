"""A repository in a folder over HTTP, for demos and tests.

Any other static file server will do: devices trust the signatures, not the server.
"""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles


def app(repository: Path) -> Starlette:
    """Return the ASGI application that serves a repository's files."""
    return Starlette(
        routes=[
            Mount(f"/{name}", StaticFiles(directory=repository / name, check_dir=False))
            for name in ("metadata", "targets")
        ]
    )
