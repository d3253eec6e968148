"""The collector's OpenAPI document, made from the contract's own structs and the server's own limits."""

from __future__ import annotations

from typing import Any

import msgspec

from sanderling.events import schema as wire
from sanderling_trainer.collector.limits import Limits

REFUSALS = {
    400: "Not one whole zstd frame, or a line that names no event.",
    401: "The token is unknown or revoked.",
    408: f"The body took longer than {Limits.body_s:g} s.",
    410: "The install was erased; the device is to forget what waits.",
    413: f"More than {Limits.body_bytes} bytes packed, {wire.MAX_BATCH_BYTES} unpacked, "
    f"{wire.MAX_BATCH_EVENTS} events, or {Limits.installs} installs.",
    415: "The content-encoding is not zstd.",
}
WAITS = {
    429: f"The install sends more than {Limits.events_s:g} events/s.",
    503: "Overload, too many unknown tokens at once, or the store fails.",
}

_STATUS = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_RETRY_AFTER = {
    "required": True,
    "schema": {"type": "integer", "minimum": 0},
    "description": "Seconds.",
}


def _json(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _structs() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schemas of an event and an answer by name, and of the union of events."""
    (event, _), schemas = msgspec.json.schema_components(
        [wire.Event, wire.Answer], ref_template="#/components/schemas/{name}"
    )
    return schemas, event


def _header(name: str, required: bool, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": required,
        "schema": schema,
        "description": text,
    }


def _events(event: dict[str, Any]) -> dict[str, Any]:
    answer = {"$ref": "#/components/schemas/Answer"}
    responses = {"200": _json("Durable: a verdict for each event, in their order.", answer)}
    for status, text in (REFUSALS | WAITS).items():
        responses[str(status)] = _json(text, _ERROR)
        if status in WAITS:
            responses[str(status)]["headers"] = {"Retry-After": _RETRY_AFTER}
    lines = {
        "type": "string",
        "format": "binary",
        "description": "One zstd frame around JSON lines.",
        "x-line": event,
    }
    return {
        "operationId": "events",
        "summary": "Take a batch of events; the answer comes when they are durable.",
        "security": [{"token": []}],
        "parameters": [
            _header(
                "Content-Encoding",
                True,
                {"const": "zstd", "type": "string"},
                "How the lines are packed.",
            ),
            _header(
                "Sent-At",
                False,
                {"type": "string"},
                "Wall ms since 1970 on the device, at this attempt.",
            ),
        ],
        "requestBody": {"required": True, "content": {"application/x-ndjson": {"schema": lines}}},
        "responses": responses,
    }


def _get(name: str, summary: str, answers: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"operationId": name, "summary": summary, "responses": answers}}


def _document() -> dict[str, Any]:
    schemas, event = _structs()
    text = {
        "description": "Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sanderling collector", "version": str(wire.SCHEMA)},
        "paths": {
            "/v1/events": {"post": _events(event)},
            "/healthz": _get(
                "health", "Does the server live?", {"200": _json("It does.", _STATUS)}
            ),
            "/readyz": _get(
                "ready",
                "Does the store take files?",
                {"200": _json("It does.", _STATUS), "503": _json("It does not.", _STATUS)},
            ),
            "/metrics": _get("metrics", "The server's figures.", {"200": text}),
            "/openapi.json": _get(
                "document", "This document.", {"200": _json("This.", {"type": "object"})}
            ),
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


DOCUMENT = _document()
