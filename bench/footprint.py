"""Import time and resident memory of the engine, step by step until the first recommendation, and
what it takes in site-packages.

Lower bound: a Python process with numpy takes about 25 MB; what is above that is ours. Each step
runs in a process of its own, seven times; the median is reported. The peer is `import numpy` alone,
in the same run. The sizes on disk are those of the files that each distribution of
`sanderling[text]` has installed, compiled bytecode included.

    python -m bench footprint
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.serving.random_bundle import write_random_bundle

REPEATS = 7
OPEN = "from sanderling import Engine; e = Engine.open(bundle)"
STEPS = {
    "python": "pass",
    "numpy": "import numpy",
    "import sanderling": "import sanderling",
    "import Engine": "from sanderling import Engine",
    "open, numpy kernel": f"{{numpy}}; {OPEN}",
    "recommend, numpy kernel": f"{{numpy}}; {OPEN}; e.recommend('anna')",
    "recommend, best kernels": f"{OPEN}; e.recommend('anna')",
    "with context, numpy kernel": f"{{numpy}}; {OPEN}; e.recommend('anna', context='rain')",
}
PROBE = """
import time; start = time.perf_counter(); bundle = {bundle!r}
{step}
spent = time.perf_counter() - start
import json; status = open("/proc/self/status").read()
print(json.dumps([spent * 1e3, int(status.split("VmHWM:")[1].split()[0]) / 1024]))
"""


def run(_: list[str]) -> dict[str, Any]:
    """Return ms and MB (peak resident set, as Linux reports it) of each step."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_random_bundle(bundle, items=10_000, dim=64)
        result = {name: _measure(step, str(bundle)) for name, step in STEPS.items()}
    for name, row in result.items():
        print(f"{name:<28}{row['ms']:>9.1f} ms{row['mb']:>9.1f} MB")
    sizes = _installed_mb("sanderling[text]")
    for name, mb in sorted(sizes.items(), key=lambda entry: -entry[1]):
        print(f"{name:<28}{mb:>9.1f} MB on disk")
    print(f"{'together':<28}{sum(sizes.values()):>9.1f} MB on disk")
    return {**result, "on disk": sizes}


def _measure(step: str, bundle: str) -> dict[str, float]:
    code = PROBE.format(
        bundle=bundle,
        step=step.replace("{numpy}", "import os; os.environ['SANDERLING_KERNELS'] = 'numpy'"),
    )
    runs = []
    for _ in range(REPEATS):
        probe = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        runs.append(json.loads(probe.stdout))
    return {
        "ms": statistics.median(run[0] for run in runs),
        "mb": statistics.median(run[1] for run in runs),
    }


def _installed_mb(requirement: str) -> dict[str, float]:
    """Return the MB that a requirement and all that it needs take, by distribution."""
    sizes: dict[str, float] = {}
    waiting = [Requirement(requirement)]
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        found = metadata.distribution(name)
        if name not in sizes:
            files = [Path(str(file.locate())) for file in found.files or []]
            sizes[name] = sum(file.stat().st_size for file in files if file.is_file()) / 2**20
        waiting += [
            known
            for known in map(Requirement, found.requires or [])
            if _applies(known, needed.extras)
        ]
    return sizes


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    """Return whether a requirement holds on this machine for one of the extras, or without."""
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in extras or {""})
