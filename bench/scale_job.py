"""Cost of the nightly job as the log grows: seconds and memory of `retrain`, by stage.

Expected: time grows with the decisions; so does memory, since histories and decisions of the whole
log are in it: a decision of ten slots is 10 rows of 42 bytes, an event of a history 34 bytes.

Protocol: each log (`scaling/fleet_log.py`) is written to disk first, as segments of 20,000 events.
`retrain` then runs in a process of its own with one thread, `--ship-anyway`, and without a bundle.
The peak of memory is the kernel's (`ru_maxrss`) up to the end of each stage, the files it mapped
included. Seconds of the process' CPU stand beside those of the clock, since the machine is shared.

    python -m bench scale_job [--decisions 10000 100000] [--items 10000]

10⁶ decisions take a log of 300 MB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGES = ("reading", "learning", "judging", "writing")


def run(arguments: list[str]) -> dict[str, Any]:
    """Return the rows of each size of the log."""
    parser = argparse.ArgumentParser(prog="bench scale_job")
    parser.add_argument("--decisions", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--scratch", type=Path, default=None, help="folder for the logs")
    parser.add_argument("--case", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        return _case(options.case)

    cases = [_measured(size, options.items, options.scratch) for size in options.decisions]
    return {"rows": [row for case in cases for row in _rows(case)], "cases": cases}


def _measured(decisions: int, items: int, scratch: Path | None) -> dict[str, Any]:
    """Write a log, and measure the job on it in a process of its own."""
    from bench.scaling.fleet_log import write_checkpoint, write_store

    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        write_checkpoint(Path(folder) / "active", items)
        start = time.perf_counter()
        counts = write_store(Path(folder) / "events", decisions, items)
        written = {"seconds to write the log": time.perf_counter() - start}

        command = [sys.executable, "-m", "bench", "scale_job", "--case", folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    sizes = {"decisions": decisions, "items": items, **counts}
    case = sizes | written | json.loads(done.stdout.splitlines()[-1])
    print(", ".join(f"{name} {value:.5g}" for name, value in case.items()), flush=True)
    return case


def _case(folder: Path) -> dict[str, Any]:
    """Run the job; return what each stage took."""
    from bench.scaling.fleet_log import NightClock
    from sanderling_trainer.jobs import retrain as job

    stages = _Stages()
    stages.measure(job.NightInputs, "read", "reading")
    stages.measure(job, "teach", "learning")
    stages.measure(job, "judge", "judging")
    stages.measure(job, "_write", "writing")
    start, cpu = time.perf_counter(), time.process_time()
    options = job.RetrainOptions(ship_anyway=True)
    done = job.retrain(
        str(folder / "events"), folder / "active", folder / "next", options, NightClock()
    )
    assert done.written, done.reasons
    return stages.costs | {
        "whole: seconds": time.perf_counter() - start,
        "whole: CPU seconds": time.process_time() - cpu,
        "whole: peak MB": _peak_mb(),
        "new decisions": done.metrics["lessons"]["new_decisions"],
    }


class _Stages:
    """Wraps the steps of a job, and records what each takes."""

    def __init__(self) -> None:
        self.costs: dict[str, float] = {}

    def measure(self, owner: Any, name: str, stage: str) -> None:
        """Replace a function by one that records its costs under the name of a stage."""
        original: Callable[..., Any] = getattr(owner, name)

        def measured(*arguments: Any) -> Any:
            start, cpu = time.perf_counter(), time.process_time()
            result = original(*arguments)
            self.costs[f"{stage}: seconds"] = time.perf_counter() - start
            self.costs[f"{stage}: CPU seconds"] = time.process_time() - cpu
            self.costs[f"{stage}: peak MB"] = _peak_mb()
            return result

        setattr(owner, name, measured)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _rows(case: dict[str, Any]) -> list[dict[str, Any]]:
    data = f"synthetic, {case['items']} items, {case['decisions']} decisions of ten slots"
    return [
        {
            "data": data,
            "model": "sanderling retrain",
            "metric": f"{stage}: {what}",
            "value": case[f"{stage}: {what}"],
            "low": None,
            "high": None,
            "seeds": 1,
        }
        for stage in (*STAGES, "whole")
        for what in ("seconds", "CPU seconds", "peak MB")
    ]
