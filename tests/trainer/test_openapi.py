"""The OpenAPI document is correct: schemathesis compares it with a running server."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks

from sanderling.events import codec
from sanderling_trainer.collector.openapi import DOCUMENT
from tests.support.fakes import EventFactory
from tests.support.servers import Server

pytestmark = pytest.mark.lab

SIZES = [pytest.param(250, id="250"), pytest.param(5000, id="5000", marks=pytest.mark.soak)]
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    """Bodies from valid batches to noise, most of them a damaged batch."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    make = EventFactory(f"{rng.getrandbits(128):032x}", start=rng.getrandbits(100))
    lines = [
        codec.encode(rng.choice([make.decision, make.observation])(seq=seq))
        for seq in range(1, rng.randint(1, 6))
    ]
    lines = [_damaged(line, rng) if rng.random() < 0.3 else line for line in lines]
    body = codec.pack(lines)
    return (
        draw(st.binary()) if rng.random() < 0.1 else _cut(body, rng) if rng.random() < 0.1 else body
    )


def _damaged(line: bytes, rng: random.Random) -> bytes:
    event = json.loads(line)
    event[rng.choice(list(event))] = rng.choice(
        [None, -1, 1e308, "", "é", "\n\x1b[31m", [], {}, True, "9" * 700]
    )
    return json.dumps(event).encode()


def _cut(body: bytes, rng: random.Random) -> bytes:
    return body[: rng.randrange(len(body))]


schemathesis.openapi.media_type("application/x-ndjson", batches())


@schemathesis.serializer("application/x-ndjson")
def whole(context: schemathesis.SerializationContext, value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.mark.parametrize("examples", SIZES)
def test_every_answer_is_documented(tmp_path, examples):
    """Whatever schemathesis sends, no answer is a 5xx, or has an undocumented status, header or
    schema.
    """
    server = Server(tmp_path)
    url = f"http://127.0.0.1:{server.port}"
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    statuses: Counter[int] = Counter()

    def call(case: schemathesis.Case, has_token: bool) -> None:
        answer = case.call(
            base_url=url, headers={"authorization": "Bearer secret"} if has_token else {}
        )
        case.validate_response(answer, checks=CHECKS)
        assert has_token or case.method != "POST" or answer.status_code == 401
        statuses[answer.status_code] += 1

    for operation in (result.ok() for result in schema.get_all_operations()):
        max_examples = examples if operation.method == "post" else 20
        quiet = settings(
            max_examples=max_examples, deadline=None, suppress_health_check=list(HealthCheck)
        )
        quiet(given(case=operation.as_strategy(), has_token=st.integers(0, 9).map(bool))(call))()
    server.stop()
    assert {200, 400, 401} <= set(statuses), statuses
    assert statuses.total() >= examples


@pytest.mark.mutant
def test_a_wrong_document_is_detected(tmp_path):
    """The same check fails when a status that the server returns is not documented."""
    document = json.loads(json.dumps(DOCUMENT))
    del document["paths"]["/v1/events"]["post"]["responses"]["401"]
    server = Server(tmp_path)
    case = schemathesis.openapi.from_dict(document)["/v1/events"]["POST"].Case(body=b"")
    answer = case.call(base_url=f"http://127.0.0.1:{server.port}")
    with pytest.raises(FailureGroup, match="401"):
        case.validate_response(answer, checks=CHECKS)
    server.stop()
