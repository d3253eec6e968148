"""The collector's OpenAPI document, built from the wire structs and the server's limits."""

from __future__ import annotations

from typing import Any

import msgspec

from sanderling.events import schema as wire
from sanderling_trainer.collector.decompression import ENCODINGS
from sanderling_trainer.collector.limits import Limits

REFUSALS = {
    400: "Not one whole zstd frame or gzip member, or a line without an event's id.",
    401: "The token is unknown or revoked.",
    408: f"The body took longer than {Limits.body_s:g} s.",
    410: "The install was erased; the device must delete its events.",
    413: f"More than {Limits.body_bytes} bytes compressed, {wire.MAX_BATCH_BYTES} decompressed, "
    f"{wire.MAX_BATCH_EVENTS} events, or {Limits.installs} installs.",
    415: "The content-encoding is neither zstd nor gzip.",
}
RETRIES = {
    429: f"An install sends more than {Limits.events_s:g} events/s, or a device's token brings more"
    f" than {Limits.new_installs:g} new installs a day.",
    503: "Overload, too many unknown tokens at once, or the store fails.",
}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _text_field(name: str) -> dict[str, Any]:
    """Return the schema of an object with one text."""
    return {"type": "object", "required": [name], "properties": {name: {"type": "string"}}}


def _post_events(event: dict[str, Any]) -> dict[str, Any]:
    responses = {
        "200": _answer(
            "The events are durable: one verdict each, in their order.",
            {"$ref": "#/components/schemas/BatchResponse"},
        )
    }
    for status, description in (REFUSALS | RETRIES).items():
        responses[str(status)] = _answer(description, _text_field("error"))
    retry_after = {"required": True, "schema": {"type": "integer", "minimum": 0}}
    for status in RETRIES:
        responses[str(status)]["headers"] = {"Retry-After": retry_after}

    body = {
        "description": "JSON lines in one zstd frame or gzip member.",
        "type": "string",
        "format": "binary",
        "x-line": event,
    }
    encoding = {
        "name": "Content-Encoding",
        "in": "header",
        "required": True,
        "schema": {"enum": list(ENCODINGS), "type": "string"},
    }
    sent_at = {
        "name": "Sent-At",
        "description": "Wall ms since 1970 on the device, at this attempt.",
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
    }
    return {
        "operationId": "events",
        "summary": "Take a batch of events; the answer comes when they are durable.",
        "security": [{"token": []}],
        "parameters": [encoding, sent_at],
        "requestBody": {"required": True, "content": {"application/x-ndjson": {"schema": body}}},
        "responses": responses,
    }


def _get(name: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"operationId": name, "summary": summary, "responses": responses}}


def _document() -> dict[str, Any]:
    (event, _), schemas = msgspec.json.schema_components(
        [wire.Event, wire.BatchResponse], ref_template="#/components/schemas/{name}"
    )
    status = _text_field("status")
    ready = {"200": _answer("It is.", status), "503": _answer("It is not.", status)}
    text = {
        "description": "Prometheus' text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sanderling collector", "version": str(wire.SCHEMA)},
        "paths": {
            "/v1/events": {"post": _post_events(event)},
            "/healthz": _get("health", "Does the process live?", {"200": _answer("Yes.", status)}),
            "/readyz": _get("ready", "Is the store writable?", ready),
            "/metrics": _get("metrics", "The metrics of the process.", {"200": text}),
            "/openapi.json": _get(
                "document", "This document.", {"200": _answer("This.", {"type": "object"})}
            ),
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


DOCUMENT = _document()
