"""Fixtures that several files share."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanderling import Engine
from tests.support.bundles import write_bundle
from tests.support.fakes import FakeClock, FakeEntropy
from tests.support.upload_bench import Bench


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    """The folder of a bundle that no test changes."""
    folder = tmp_path_factory.mktemp("bundle") / "one"
    write_bundle(folder)
    return folder


@pytest.fixture
def engine(bundle, tmp_path):
    """An engine with a state folder, whose clock and randomness are fixed."""
    with Engine.open(
        bundle, tmp_path / "state", clock=FakeClock(), entropy=FakeEntropy()
    ) as opened:
        yield opened


@pytest.fixture
def bench(tmp_path):
    benches = []

    def build(events: int, answer=None, **options) -> Bench:
        benches.append(Bench(tmp_path / str(len(benches)), events, answer, **options))
        return benches[-1]

    yield build
    for each in benches:
        each.outbox.close()
