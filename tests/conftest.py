"""What holds for every test: one thread for numerical libraries, files in memory where there is room,
and no time limit for the examples of hypothesis, because a machine may stand still at times.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("timeless", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("timeless")

# Two workers with as many threads as cores each only get in each other's way. Set before torch is imported;
# processes that a test starts inherit it.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4 * 2**30


def pytest_configure(config: pytest.Config) -> None:
    """Put temporary folders into memory: most of a test that stores something is waiting for a disk to flush.

    Long runs and power cuts keep the disk; so does a run with a `--basetemp` of its own.
    """
    long = {"soak", "power"} & set(config.option.markexpr.replace("not soak", "").replace("not power", "").split())
    if not long and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
