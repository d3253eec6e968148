"""Fixtures that several files share."""

from __future__ import annotations

import pytest

from tests.support.upload_bench import Bench


@pytest.fixture
def bench(tmp_path):
    benches = []

    def build(events: int, answer=None, **options) -> Bench:
        benches.append(Bench(tmp_path / str(len(benches)), events, answer, **options))
        return benches[-1]

    yield build
    for each in benches:
        each.outbox.close()
