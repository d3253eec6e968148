"""`python -m bench NAME`: run `bench.NAME` and print its result as JSON on the last line.

`python -m bench` lists the benchmarks.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import sys
from pathlib import Path

ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime would report to its makers
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


def main() -> None:
    """Run one benchmark in a process whose libraries use one thread; without a name, list them."""
    descriptions = _descriptions()
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m bench NAME [OPTION ...]\n")
        print(*(f"{name:<16}  {text}" for name, text in descriptions.items()), sep="\n")
        return
    if sys.argv[1] not in descriptions:
        sys.exit(f"expected one of {', '.join(descriptions)}, found {sys.argv[1]}")

    # Numerical libraries read these variables when they are loaded: set them in a new process.
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(
            sys.executable,
            [sys.executable, "-m", "bench", *sys.argv[1:]],
            {**os.environ, **ENVIRONMENT},
        )
    result = importlib.import_module(f"bench.{sys.argv[1]}").run(sys.argv[2:])
    print(json.dumps(result))


def _descriptions() -> dict[str, str]:
    """Return the first sentence of each benchmark's docstring by its name, importing none."""
    folder = Path(__file__).parent
    names = [
        module.name
        for module in pkgutil.iter_modules([str(folder)])
        if module.name != "__main__" and not module.ispkg
    ]
    return {name: _first_sentence(folder / f"{name}.py") for name in names}


def _first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())


main()
