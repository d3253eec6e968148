"""Checks which engine features work on this machine, for people who embed the engine and for their
bug reports.

Looks at the installation alone, not at bundles.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from sanderling.kernels import cpu, loader
from sanderling.ranking.index import Int8Index
from sanderling.ranking.quantization import quantize_rows
from sanderling.version import __version__

Report = dict[str, dict[str, str]]
EXTRAS = {
    "text": ["onnxruntime", "tokenizers"],
    "jit": ["numba"],
    "update": ["tuf"],
    "cli": ["typer"],
    "serve": ["uvicorn", "httptools", "typer"],
}


def examine() -> Report:
    """Return the state of each part, `ok`, `absent` or `wrong`, and the reason for it."""
    return {
        "engine": _part("ok", f"{__version__}, Python {platform.python_version()}, {sys.platform}"),
        "processor": _part("ok", f"{cpu.machine()}: can run {', '.join(cpu.kinds())}"),
        "kernels": _kernels(),
        **{f"extra {extra}": _extra(packages) for extra, packages in EXTRAS.items()},
        "storage": _storage(),
    }


def as_text(report: Report) -> str:
    """Return a report as a table for people."""
    return "\n".join(
        f"{part:<14}{result['state']:<8}{result['why']}" for part, result in report.items()
    )


def is_wrong(report: Report) -> bool:
    """Return whether something is wrong here."""
    return any(result["state"] == "wrong" for result in report.values())


def _kernels() -> dict[str, str]:
    setting = os.environ.get("SANDERLING_KERNELS")
    try:
        kernels = loader.chosen()
    except (ImportError, ValueError) as error:
        return _part("wrong", f"SANDERLING_KERNELS={setting}: {error}")
    chosen = f"SANDERLING_KERNELS={setting}" if setting else "the best available"
    if kernels is None:
        return _part("ok" if setting else "absent", f"numpy, {chosen}: {_why_not_compiled()}")
    if not _agrees():
        return _part(
            "wrong",
            f"{kernels.source} for {kernels.kind} gives other answers than numpy; please report it",
        )
    return _part("ok", f"{kernels.source} for {kernels.kind}, {chosen}; same answers as numpy")


def _why_not_compiled() -> str:
    try:
        loader.compiled()
    except ImportError as error:
        return f"{error}; numba is not installed"
    return "compiled kernels are there"


def _agrees() -> bool:
    rng = np.random.default_rng(0)
    rows, scale = quantize_rows(rng.standard_normal((3000, 40)).astype(np.float32))
    query = rng.standard_normal(40).astype(np.float32)
    bias = rng.standard_normal(3000).astype(np.float32)
    answers = [Int8Index(rows, scale, bias, source).top(query, 50) for source in (None, "numpy")]
    return all(np.array_equal(ours, theirs) for ours, theirs in zip(*answers, strict=True))


def _extra(packages: list[str]) -> dict[str, str]:
    installed = []
    missing = []
    for package in packages:
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    return _part(
        "absent" if missing else "ok",
        ", ".join([*installed, *(f"no {package}" for package in missing)]),
    )


def _storage() -> dict[str, str]:
    import apsw

    with tempfile.TemporaryDirectory() as folder:
        connection = apsw.Connection(str(Path(folder) / "probe"))
        mode = connection.pragma("journal_mode", "wal")
        connection.close()
    return _part(
        "ok" if mode == "wal" else "wrong", f"SQLite {apsw.sqlite_lib_version()}, journal {mode}"
    )


def _part(state: str, why: str) -> dict[str, str]:
    return {"state": state, "why": why}
