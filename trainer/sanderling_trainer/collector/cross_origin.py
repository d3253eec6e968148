"""Lets pages of chosen origins post events: CORS (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

HEADERS = ("authorization", "content-encoding", "content-type", "sent-at")
"""What the devices send."""

PREFLIGHT_S = 86_400
"""How long browsers may remember the answer to a preflight; they have lower limits of their own."""

ANY = "*"


def cross_origin(origins: Sequence[str]) -> list[Middleware]:
    """Return what answers preflights of pages and lets them read responses; nothing without
    origins.

    Raises `ValueError` for what is no origin.
    """
    if not origins:
        return []
    for origin in origins:
        _check_origin(origin)
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["POST"],
            allow_headers=HEADERS,
            expose_headers=["retry-after"],
            max_age=PREFLIGHT_S,
        )
    ]


def _check_origin(origin: str) -> None:
    if origin == ANY:
        return
    parts = urlsplit(origin)
    # Apps have schemes of their own, such as capacitor://localhost.
    is_origin = parts.scheme != "" and origin == f"{parts.scheme}://{parts.netloc}"
    if not is_origin or not parts.hostname or parts.username is not None:
        raise ValueError(
            "allow-origin: expected an origin such as https://shop.example, without a path and in"
            f" lower case, or * for all pages, found {origin!r}"
        )
