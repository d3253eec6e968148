"""What the engine adds to its encoder: time, memory, and waiting beside an upsert.

Lower bound: `session.run` is the work, and the tokenizer is needed before it; cleaning, hashing,
arrays and the cache are ours. onnxruntime's arena keeps what the longest text so far needed. An
upsert encodes item after item; a concurrent recommendation should only lose the processor's time.

    python -m bench encode_overhead [--bundle PATH]

The default bundle has the tests' small encoder, where overhead shows most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from bench.serving.random_bundle import THINGS, write_random_bundle
from sanderling import Engine
from sanderling.bundle.reader import Bundle
from sanderling.ranking.text_encoder import TextEncoder

TEXTS = 400
ROUNDS = 5
MAX_THINGS = 100  # in a text
PROBE = """
import sys, numpy as np
sys.path.insert(0, {root!r})
from bench.encode_overhead import open_encoder, texts_of
if {arena}:
    import onnxruntime
    class Options(onnxruntime.SessionOptions):
        def __setattr__(self, name, value):
            super().__setattr__(name, True if name == "enable_cpu_mem_arena" else value)
    onnxruntime.SessionOptions = Options
encoder = open_encoder({bundle!r})
resident = []
for part in range(10):
    for text in texts_of(200, part, longest={longest}):
        encoder.encode(text)
    resident.append(int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1024)
print(resident)
"""


def run(arguments: list[str]) -> dict[str, Any]:
    """Return times in µs, memory in MB, and recommendations beside an upsert."""
    parser = argparse.ArgumentParser(prog="bench encode_overhead")
    parser.add_argument("--bundle")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or str(Path(folder) / "bundle")
        if not options.bundle:
            write_random_bundle(Path(bundle), items=2000)
        times = _times(bundle)
        memory = {
            name: _memory(bundle, arena)
            for name, arena in (("without arena", False), ("with arena", True))
        }
        waiting = _beside_upsert(bundle)
    for name, row in {**times, **waiting}.items():
        print(f"{name:<34}{row['p50']:>9.1f}{row['p99']:>9.1f} µs", file=sys.stderr)
    print(f"MB after 200 … 2,000 texts: {memory}", file=sys.stderr)
    return {"times": times, "memory": memory, "beside an upsert": waiting}


def open_encoder(bundle: str) -> TextEncoder:
    """Return the encoder of a bundle, loaded."""
    opened = Bundle.open(bundle)
    encoder = TextEncoder(
        opened.folder, opened.manifest.sizes.text, opened.manifest.sizes.max_tokens
    )
    encoder.encode("first")
    return encoder


def texts_of(count: int, seed: int, longest: int = 5) -> list[str]:
    """Return texts of 1 to `longest` things, no two alike."""
    rng = np.random.default_rng(seed)
    return [
        f"{seed} {i} " + " ".join(rng.choice(THINGS, rng.integers(1, longest + 1)))
        for i in range(count)
    ]


def _times(bundle: str) -> dict[str, dict[str, float]]:
    encoder = open_encoder(bundle)
    tokenizer, session = encoder.load()

    def feed(text: str) -> dict[str, np.ndarray]:
        encoding = tokenizer.encode(text)
        return {
            "input_ids": np.array([encoding.ids], np.int64),
            "attention_mask": np.array([encoding.attention_mask], np.int64),
        }

    spent: dict[str, list[float]] = {}
    for seed in range(ROUNDS):
        texts = texts_of(TEXTS, seed)
        feeds = {text: feed(text) for text in texts}
        calls: dict[str, Callable[[str], object]] = {
            "session.run alone": lambda text, feeds=feeds: session.run(None, feeds[text]),  # type: ignore[misc]
            "tokenizer and session.run": lambda text: session.run(None, feed(text)),
            "encode": encoder.encode,
            "encode, cached": encoder.encode,
        }
        for name, call in calls.items():
            spent.setdefault(name, []).extend(_timed(call, text) for text in texts)
    return {name: _quantiles(values) for name, values in spent.items()}


def _memory(bundle: str, arena: bool) -> list[float]:
    code = PROBE.format(
        root=str(Path(__file__).parents[1]), bundle=bundle, arena=arena, longest=MAX_THINGS
    )
    probe = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [round(value, 1) for value in json.loads(probe.stdout)]


def _beside_upsert(bundle: str) -> dict[str, dict[str, float]]:
    """Time recommendations with a cached context, alone and while another thread adds items."""
    results = {}
    with Engine.open(bundle) as engine:
        engine.recommend("anna", context="rainy evening")
        call = lambda _: engine.recommend("anna", context="rainy evening")  # noqa: E731
        results["recommend, alone"] = _quantiles([_timed(call, None) for _ in range(TEXTS)])
        items = [{"id": text, "text": text} for text in texts_of(3 * TEXTS, 99)]
        adding = Thread(target=engine.upsert_items, args=(items,))
        adding.start()
        spent = []
        while adding.is_alive():
            spent.append(_timed(call, None))
        adding.join()
        results["recommend, beside an upsert"] = _quantiles(spent)
    return results


def _timed(call: Callable[[Any], object], argument: Any) -> float:
    start = time.perf_counter()
    call(argument)
    return (time.perf_counter() - start) * 1e6


def _quantiles(values: list[float]) -> dict[str, float]:
    return {
        "p50": float(np.percentile(values, 50)),
        "p99": float(np.percentile(values, 99)),
        "n": float(len(values)),
    }
