"""Cost of training as the log and the catalog grow: memory, events a second on one
core, seconds an epoch.

Expected: an event's state is read and written once each way, c = 192 floats; its softmax multiplies
d = 64 floats by each of the candidates, three times with the gradient. The candidates are the
batch's own items and 1,024 draws, whatever the catalog's size, and the optimizer touches only
their rows. Time should therefore grow with the events, and memory with the catalog: four tables
[n, d] of float32 (residual, its best values, two moments). One shard of the log is in memory.

Protocol: each case is a process of its own with one thread; its log (`scaling/world.py`) is written
to disk first. It takes steps of the warm start for a given time after ten steps of warming up; the
time of an epoch is extrapolated from that. Peak memory is the kernel's (`ru_maxrss`) and counts
mapped pages of the text vectors; `anonymous` is what cannot be dropped (`RssAnon`) at the end.

    python -m bench scale [--items 1000000] [--interactions 100000000] [--seconds 60]

The log grows by factors of ten at the full catalog, the catalog by factors of ten at the
smallest log, there with the full softmax too.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SHARD = 2**20  # events
BATCH = 1024  # events
WARM = 10  # steps before the measurement
SLICES = 5  # of the measured time, whose spread is reported
OUT = Path(__file__).parent / "out"


def run(arguments: list[str]) -> dict[str, Any]:
    """Return the rows; draw `bench/out/scale.png`."""
    parser = argparse.ArgumentParser(prog="bench scale")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--interactions", type=int, default=100_000_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--scratch", type=Path, default=None, help="folder for the world's files, 3 GB"
    )
    parser.add_argument("--case", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--full-softmax", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        return _case(options.case, options.items, options.seconds, options.full_softmax)

    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        cases = [
            _measured(Path(scratch), *size, options.seconds)
            for size in _sizes(options.items, options.interactions)
        ]
    OUT.mkdir(exist_ok=True)
    _draw(cases, options.items, options.interactions, OUT / "scale.png")
    return {
        "rows": [row for case in cases for row in _rows(case)],
        "cases": cases,
        "plot": str(OUT / "scale.png"),
    }


def _sizes(items: int, interactions: int) -> list[tuple[int, int, bool]]:
    """Return (items, interactions, whether the softmax is full) of every case."""
    logs = [
        size for size in (interactions // 100, interactions // 10, interactions) if size >= 10_000
    ]
    catalogs = [size for size in (items // 100, items // 10) if size >= 1000]

    growing_catalog = [(size, logs[0], full) for size in catalogs for full in (True, False)]
    growing_log = [(items, log, False) for log in logs]
    return growing_catalog + growing_log


def _measured(
    scratch: Path, items: int, interactions: int, full: bool, seconds: float
) -> dict[str, Any]:
    """Write a world, measure one case in a process of its own, and remove the log."""
    from bench.scaling.world import write_shards, write_texts

    texts = scratch / f"texts-{items}"
    if not texts.exists():
        write_texts(texts, items)

    folder = scratch / f"log-{items}-{interactions}"
    start = time.perf_counter()
    write_shards(folder, items, interactions, SHARD)
    written = {
        "interactions": interactions,
        "softmax": "full" if full else "sampled",
        "seconds to write": time.perf_counter() - start,
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
    }
    command = [sys.executable, "-m", "bench", "scale", "--case", str(folder)]
    command += ["--items", str(items), "--seconds", str(seconds)] + ["--full-softmax"] * full
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    for file in folder.iterdir():
        file.unlink()

    case = written | json.loads(done.stdout.splitlines()[-1])
    numbers = {name: value for name, value in case.items() if isinstance(value, int | float)}
    print(", ".join(f"{name} {value:.5g}" for name, value in numbers.items()), flush=True)
    return case


def _case(folder: Path, items: int, seconds: float, full: bool) -> dict[str, Any]:
    """Take steps of the warm start for so many seconds; return what they cost."""
    import torch

    from bench.scaling.world import YEAR, read_texts
    from sanderling_trainer.data.shards import Shards
    from sanderling_trainer.policy.model.config import Config
    from sanderling_trainer.policy.model.network import PolicyNetwork
    from sanderling_trainer.policy.training.batch_source import batch_source
    from sanderling_trainer.policy.training.context import TrainingContext
    from sanderling_trainer.policy.training.glibc_malloc import keep_memory
    from sanderling_trainer.policy.training.warm_start import (
        warm_start_objective,
        warm_start_optimizer,
    )

    keep_memory()
    torch.manual_seed(0)
    config = Config(batch_events=BATCH, epochs=1, full_softmax=items if full else 0)
    texts = read_texts(folder.parent / f"texts-{items}", items)
    network = PolicyNetwork(config, texts, torch.empty(0, texts.shape[1]), 2).train()
    shards = Shards(folder, validation_after=int(0.9 * YEAR))
    context = TrainingContext(network, shards, config, repeats=False)

    start = time.perf_counter()
    source = batch_source(context)
    seconds_to_open = time.perf_counter() - start
    objective = warm_start_objective(context, source)
    optimizer = warm_start_optimizer(context, source.batches)

    marks = []
    losses = []
    events = 0
    for step, batch in enumerate(source.training(np.random.default_rng(0))):
        if step >= WARM:
            marks.append((time.perf_counter(), time.process_time(), events))
            if marks[-1][0] - marks[0][0] > seconds:
                break
        loss = objective(*batch)
        optimizer.accumulate_and_step(loss)
        losses.append(loss.item())
        events += int((batch[0].items >= 0).sum())
    costs = _costs(np.array(marks), losses, items, shards.events)
    return costs | {"seconds to open": seconds_to_open}


def _costs(marks: np.ndarray, losses: list[float], items: int, events: int) -> dict[str, Any]:
    """Return the rates over the whole time and over its slices, and the memory.

    marks: [m, 3], wall time, CPU time and events so far.
    """
    cuts = marks[np.unique(np.linspace(0, len(marks) - 1, SLICES + 1).astype(int))]
    wall, cpu, done = (marks[-1] - marks[0]).tolist()
    slices = np.diff(cuts, axis=0)
    status = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text().splitlines()
        if ":" in line
    )
    return {
        "items": items,
        "steps": len(marks) - 1,
        "seconds": wall,
        "share of the core": cpu / wall,
        "events/s/core": done / cpu,
        "events/s/core by slice": (slices[:, 2] / slices[:, 1]).tolist(),
        "core hours an epoch, extrapolated": events / (done / cpu) / 3600,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "anonymous MB": int(status["RssAnon"].split()[0]) / 1024,
        "first loss": float(np.mean(losses[:WARM])),
        "last loss": float(np.mean(losses[-WARM:])),
    }


def _rows(case: dict[str, Any]) -> list[dict[str, Any]]:
    data = (
        f"synthetic, {case['items']} items, {case['interactions']} events,"
        f" {case['softmax']} softmax"
    )
    slices = case["events/s/core by slice"]
    spread = {"events/s/core": (min(slices), max(slices))}
    names = (
        "events/s/core",
        "core hours an epoch, extrapolated",
        "peak MB",
        "anonymous MB",
        "seconds to write",
    )
    return [
        {
            "data": data,
            "model": "sanderling",
            "metric": name,
            "value": case[name],
            "low": low,
            "high": high,
            "seeds": 1,
        }
        for name in names
        for low, high in [spread.get(name, (None, None))]
    ]


def _draw(cases: list[dict[str, Any]], items: int, interactions: int, file: Path) -> None:
    """Draw the cost of 1,000 events and the peak memory against both sizes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), layout="constrained")
    smallest = min(case["interactions"] for case in cases)
    by_size = {
        "events in the log": [case for case in cases if case["items"] == items],
        "items": [
            case
            for case in cases
            if case["interactions"] == smallest and case["softmax"] == "sampled"
        ],
    }
    for column, (size, own) in enumerate(by_size.items()):
        sizes = [case["interactions" if column == 0 else "items"] for case in own]
        cost = [1e6 / case["events/s/core"] for case in own]
        axes[0, column].plot(sizes, cost, "o-")
        axes[0, column].set(
            xscale="log", ylabel="core ms for 1,000 events", ylim=(0, 1.2 * max(cost))
        )
        for name in ("peak MB", "anonymous MB"):
            axes[1, column].plot(sizes, [case[name] for case in own], "o-", label=name)
        axes[1, column].set(xscale="log", xlabel=size, ylabel="MB", ylim=(0, None))
        axes[1, column].legend()
    figure.suptitle(
        f"Training out of core: up to {items:,} items and {interactions:,} events, one core"
    )
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
