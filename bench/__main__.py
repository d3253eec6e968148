"""`python -m bench NAME`: run `bench.NAME` and print its result as JSON on the last line."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
from pathlib import Path

THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


def main() -> None:
    """Run one benchmark in a process whose libraries use one thread."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    names = [module.name for module in modules if module.name != "__main__" and not module.ispkg]
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        sys.exit(f"expected one of: {', '.join(names)}")
    if any(os.environ.get(name) != value for name, value in THREADS.items()):
        os.execve(
            sys.executable,
            [sys.executable, "-m", "bench", *sys.argv[1:]],
            {**os.environ, **THREADS},
        )
    result = importlib.import_module(f"bench.{sys.argv[1]}").run(sys.argv[2:])
    print(json.dumps(result))


main()
