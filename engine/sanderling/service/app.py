"""The ASGI application of a service: token, body, arguments, call, answer.

No answer is a traceback: what the engine refuses has status 400 and its own sentence.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from sanderling.engine import Engine
from sanderling.errors import BundleError, StorageError, UpdateError
from sanderling.reasons import Reasons
from sanderling.service.body import BodyReader, Receive
from sanderling.service.endpoints import Endpoints
from sanderling.service.limits import Limits, RefusalError
from sanderling.service.messages import Done, StoredReceipt
from sanderling.service.metrics import CONTENT_TYPE, RequestMetrics, engine_lines
from sanderling.service.openapi import document
from sanderling.service.routes import ROUTES, Route
from sanderling.slate import FoundItems, Receipt, Slate

log = logging.getLogger("sanderling")

Headers = Iterable[tuple[bytes, bytes]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

JSON = b"application/json"
CLOSES = (408, 413)
"""Statuses after which the rest of a body is not read: the connection closes."""

_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """What a request is answered with."""

    status: int
    body: bytes
    content_type: bytes = JSON


class _Call(NamedTuple):
    route: Route
    decode: Callable[[bytes], Any]
    run: Callable[..., Awaitable[Any]]


class Service:
    """The application over one engine, which its caller opens and closes.

    token: the bearer token that every call must have; None where the socket's file decides.
    """

    def __init__(self, engine: Engine, token: str | None, limits: Limits) -> None:
        endpoints = Endpoints(engine, limits)
        self._engine = engine
        self._token = None if token is None else token.encode()
        self._limits = limits
        self._bodies = BodyReader(limits)
        self._metrics = RequestMetrics()
        self._document = _encode(document(limits, has_token=token is not None))
        self._calls = {
            route.path: _Call(
                route,
                msgspec.json.Decoder(route.takes or Any).decode,
                getattr(endpoints, route.name),
            )
            for route in ROUTES
        }
        self._pages: dict[str, Callable[[], Answer]] = {
            "/healthz": lambda: Answer(200, _encode({"status": "ok"})),
            "/readyz": self._readiness,
            "/metrics": self._metrics_page,
            "/openapi.json": lambda: Answer(200, self._document),
        }

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        start_s = time.perf_counter()
        path = scope["path"]
        call = self._calls.get(path)
        if call is not None:
            answer, headers = await self._respond(call, scope, receive)
            self._metrics.count(call.route.name, answer.status, time.perf_counter() - start_s)
        else:
            answer, headers = self._respond_page(path, scope["method"])
            self._metrics.count("other", answer.status, time.perf_counter() - start_s)

        body = b"" if scope["method"] == "HEAD" else answer.body
        headers += [
            (b"content-type", answer.content_type),
            (b"content-length", str(len(answer.body)).encode()),
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _respond(
        self, call: _Call, scope: dict[str, Any], receive: Receive
    ) -> tuple[Answer, list[tuple[bytes, bytes]]]:
        try:
            self._check_token(scope["headers"])
            if scope["method"] != call.route.method:
                return _wrong_method(call.route.method)
            if call.route.takes is None:
                return _answer(await call.run()), []
            body = await self._bodies.read(receive, scope["headers"])
            return _answer(await call.run(_arguments(call, body))), []
        except Exception as error:
            refusal = _refusal(call.route.name, error)
        return self._refused(refusal)

    def _respond_page(self, path: str, method: str) -> tuple[Answer, list[tuple[bytes, bytes]]]:
        page = self._pages.get(path)
        if page is None:
            reason = f"path: expected one that /openapi.json lists, found {path!r:.80}"
            return self._refused(RefusalError(404, reason))
        if method != "GET":
            return _wrong_method("GET")
        return page(), []

    def _check_token(self, headers: Headers) -> None:
        if self._token is None:
            return
        found = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, token = found.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise RefusalError(
                401, "token: expected the header `Authorization: Bearer …` with the service's token"
            )

    def _refused(self, refusal: RefusalError) -> tuple[Answer, list[tuple[bytes, bytes]]]:
        headers = []
        if refusal.status == 503:
            headers.append((b"retry-after", str(self._limits.retry_after_s).encode()))
        if refusal.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if refusal.status in CLOSES:
            headers.append((b"connection", b"close"))
        return Answer(refusal.status, _encode({"error": refusal.reason})), headers

    def _readiness(self) -> Answer:
        fault = self._engine.storage_fault
        if fault is None:
            return Answer(200, _encode({"status": "ok"}))
        return Answer(503, _encode({"status": f"rewards are not stored: {fault}"}))

    def _metrics_page(self) -> Answer:
        counters = msgspec.to_builtins(self._engine.counters())
        lines = [*engine_lines(counters), *self._metrics.lines()]
        return Answer(200, "\n".join([*lines, ""]).encode(), CONTENT_TYPE.encode())


def _arguments(call: _Call, body: bytes) -> Any:
    """Return the arguments in a body; an empty one is that of a call without any."""
    try:
        return call.decode(body or b"{}")
    except UnicodeDecodeError as error:
        reason = f"body: expected valid UTF-8: {error.reason}"
    except RecursionError:
        reason = "body: expected fewer lists and objects inside each other"
    except msgspec.DecodeError as error:
        reason = f"body: expected the arguments of {call.route.name} in JSON: {error}"
    raise RefusalError(400, reason)


def _refusal(name: str, error: Exception) -> RefusalError:
    """Return what a failed call is answered with."""
    if isinstance(error, RefusalError):
        return error
    if isinstance(error, ValueError | TypeError):
        log.info("%s refused: %s", name, error, exc_info=True)
        return RefusalError(400, str(error))
    if isinstance(error, StorageError | UpdateError | BundleError):
        log.warning("%s failed: %s", name, error)
        return RefusalError(503, str(error))
    log.error("%s failed", name, exc_info=error)
    return RefusalError(500, f"{name} failed inside the engine: please report what the log says")


def _wrong_method(expected: str) -> tuple[Answer, list[tuple[bytes, bytes]]]:
    body = _encode({"error": f"method: expected {expected}"})
    return Answer(405, body), [(b"allow", expected.encode())]


def _answer(result: Any) -> Answer:
    """Return the answer of a call that succeeded."""
    if isinstance(result, Receipt):
        return Answer(202 if result.pending else 200, _encode(StoredReceipt(*result)))
    if isinstance(result, Slate | FoundItems | Reasons):
        result = result.to_dict()
    return Answer(200, _encode(Done() if result is None else result))
