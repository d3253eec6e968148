"""Settings of every test: one thread for numerical libraries, temporary files in memory.

Hypothesis has no time limit for an example, because a busy machine may pause a process.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.support.releases import ReleaseWorld

settings.register_profile("timeless", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("timeless")

# Two workers with as many threads as cores each only get in each other's way. Set before torch is
# imported; processes that a test starts inherit it.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

LONGEST = {
    "test_full_loop",
    "test_collector_crash_points",
    "test_outbox_crash_points",
    "test_outbox_kill",
    "test_cluster",
    "test_gate",
    "test_fleet",
}

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4 * 2**30


def pytest_configure(config: pytest.Config) -> None:
    """Put temporary folders into memory: tests that store something mostly wait for disk flushes.

    Long runs and power cuts keep the disk; so does a run with a `--basetemp` of its own.
    """
    long = re.search(r"(?<!not )\b(soak|power)\b", config.option.markexpr)
    if not long and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest modules first, so that no worker is left alone with one of them."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let rewards wait longer than an app's user would: a busy machine may pause any process."""
    monkeypatch.setattr("sanderling.engine_rewards.REWARD_TIMEOUT_S", 30.0)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Make reports sendable: some tests use lone surrogates, which no worker can send as UTF-8."""
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_sendable(key): _sendable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_sendable(entry) for entry in value)
    return value


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, Callable[[Path], Any]], tuple[Path, Any]]:
    """Make what is expensive once for all workers.

    `shared(name, make)` returns a folder and what `make(folder)` returned, which must be picklable.
    Whoever asks first makes it, the others wait. Nobody may change the folder.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def shared_by_name(name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
        import fcntl

        folder, result = root / f"shared-{name}", root / f"shared-{name}.pickle"
        with (root / f"shared-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not result.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker whose try failed
                folder.mkdir()
                result.write_bytes(pickle.dumps(make(folder)))
        return folder, pickle.loads(result.read_bytes())

    return shared_by_name


@pytest.fixture(scope="session")
def release_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles that share their encoder, and a repository in which the first is published."""
    from tests.support.bundles import write_bundle
    from tests.support.releases import make_repository

    folder = tmp_path_factory.mktemp("releases")
    write_bundle(folder / "one", release=1)
    write_bundle(folder / "two", release=2, seed=1)
    make_repository(folder).publish(folder / "one")
    return folder


@pytest.fixture
def world(release_folder: Path, tmp_path: Path) -> Iterator[ReleaseWorld]:
    from tests.support.releases import ReleaseWorld

    shutil.copytree(release_folder, tmp_path, dirs_exist_ok=True)
    world = ReleaseWorld(tmp_path)
    yield world
    world.server.stop()
