"""The service's OpenAPI document is correct: schemathesis compares it with a running service."""

from __future__ import annotations

from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from sanderling import Engine
from tests.support.services import TOKEN, RunningService

EXAMPLES = [pytest.param(15, id="15"), pytest.param(1000, id="1000", marks=pytest.mark.soak)]
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]
MAY_FAIL = {"/v1/update", "/readyz"}
"""Without a repository of releases the first is always 503, as it should be."""


@pytest.mark.parametrize("examples", EXAMPLES)
def test_every_answer_is_documented(bundle, tmp_path, examples):
    """Whatever schemathesis sends, no answer is a 5xx, or has an undocumented status, header or
    schema.
    """
    with Engine.open(bundle, tmp_path / "state", window_s=60) as engine:
        service = RunningService(engine, TOKEN)
        url = f"http://127.0.0.1:{service.address}"
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        statuses: Counter[int] = Counter()

        def call(case: schemathesis.Case, has_token: bool) -> None:
            headers = {"authorization": f"Bearer {TOKEN}"} if has_token else {}
            answer = case.call(base_url=url, headers=headers)
            case.validate_response(
                answer, checks=CHECKS + [not_a_server_error] * (case.path not in MAY_FAIL)
            )
            assert has_token or not case.path.startswith("/v1/") or answer.status_code == 401
            statuses[answer.status_code] += 1

        for operation in (result.ok() for result in schema.get_all_operations()):
            quiet = settings(
                max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck)
            )
            strategy = operation.as_strategy()
            quiet(given(case=strategy, has_token=st.integers(0, 9).map(bool))(call))()
        service.stop()
    assert {200, 400, 401, 404} <= set(statuses), statuses
