"""The compiled package, and a process of Node that answers calls, once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.javascript import NodeCalls, compile_package


@pytest.fixture(scope="session")
def compiled() -> Path:
    """The folder with the compiled package."""
    return compile_package()


@pytest.fixture(scope="session")
def node(compiled: Path) -> Iterator[NodeCalls]:
    """Calls into the compiled package."""
    calls = NodeCalls(compiled)
    yield calls
    calls.close()
