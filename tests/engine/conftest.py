"""Fixtures that several files share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bundles import write_bundle
from tests.support.upload_bench import Bench


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    """The folder of a bundle that no test changes."""
    folder = tmp_path_factory.mktemp("bundle") / "one"
    write_bundle(folder)
    return folder


@pytest.fixture
def bench(tmp_path):
    benches = []

    def build(events: int, answer=None, **options) -> Bench:
        benches.append(Bench(tmp_path / str(len(benches)), events, answer, **options))
        return benches[-1]

    yield build
    for each in benches:
        each.outbox.close()
