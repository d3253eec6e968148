"""The OpenAPI document of a service, built from the types of its calls and from `Engine`'s
docstrings."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from sanderling.engine import Engine
from sanderling.service import messages
from sanderling.service.limits import Limits
from sanderling.service.routes import ROUTES, Route
from sanderling.version import __version__

REF = "#/components/schemas/{name}"
STATUSES = {
    202: "The reward is queued and not yet known to be on the disk; `receipt` tells later.",
    400: "The body is not JSON of this shape, or the engine does not accept an argument.",
    401: "The token is missing or wrong.",
    404: "No such decision or receipt is remembered.",
    408: "The body was too slow.",
    413: "The body is too large.",
    503: "It could not be stored, fetched or served now.",
}


def document(limits: Limits, *, has_token: bool) -> dict[str, Any]:
    """Return the document of a service, with or without a token."""
    types = {each for route in ROUTES for each in (route.takes, route.answers) if each is not None}
    ordered = [*sorted(types, key=str), messages.Failed]
    refs, schemas = msgspec.json.schema_components(ordered, ref_template=REF)
    by_type = dict(zip(ordered, refs, strict=True))
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    paths = {
        route.path: {route.method.lower(): _operation(route, by_type, limits)} for route in ROUTES
    }
    result: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Sanderling", "version": __version__},
        "paths": paths | _operating_paths(),
        "components": {"schemas": schemas},
    }
    if has_token:
        result["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path in paths.values():
            for operation in path.values():
                operation["security"] = [{"token": []}]
    return result


def _operation(route: Route, by_type: dict[Any, dict[str, Any]], limits: Limits) -> dict[str, Any]:
    description = inspect.getdoc(getattr(Engine, route.name, route.answers)) or ""
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": description.split("\n\n")[0].replace("\n", " "),
        "description": description,
        "responses": {"200": _answer("Done.", by_type[route.answers])},
    }
    always = (400, 401, 408, 413, 503) if route.takes else (401, 503)
    for status in sorted({*always, *route.statuses}):
        type_ = messages.StoredReceipt if status < 300 else messages.Failed
        operation["responses"][str(status)] = _answer(STATUSES[status], by_type[type_])
    retry_after = {"required": True, "schema": {"type": "integer", "minimum": 0}}
    operation["responses"]["503"]["headers"] = {"Retry-After": retry_after}
    if route.takes:
        operation["requestBody"] = {
            "description": f"At most {limits.body_bytes} bytes.",
            "required": True,
            "content": {"application/json": {"schema": by_type[route.takes]}},
        }
    return operation


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _operating_paths() -> dict[str, Any]:
    status = {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"type": "string"}},
    }
    text = {
        "description": "Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    yes = _answer("It is.", status)
    return {
        "/healthz": _get("health", "Whether the process lives.", {"200": yes}),
        "/readyz": _get(
            "readiness",
            "Whether rewards can be stored.",
            {"200": yes, "503": _answer("It is not.", status)},
        ),
        "/metrics": _get("metrics", "What became of requests and events.", {"200": text}),
        "/openapi.json": _get(
            "openapi", "This document.", {"200": _answer("OpenAPI 3.1.", {"type": "object"})}
        ),
    }


def _get(name: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"operationId": name, "summary": summary, "responses": responses}}
