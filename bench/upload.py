"""Events per second and bytes per event from a device to a server on loopback, and what is lost
when the server fails.

The physical limit: the device flushes its disk once for every 50 events and the server once a
batch; on the wire an event is about a kilobyte of JSON. Only Sanderling is durable on both sides
and answers for each event; the plain endpoint is durable on the server only, and OpenTelemetry's
receiver only counts. Client and server are a process each; contenders take turns. Bytes are those
of all request bodies, failed attempts included. With failures 30 % of the requests are answered
503, half of them after the batch was stored; `lost` are events that the server never got.

    python -m bench upload [--events 20000] [--rounds 3] [--failing 0.3]

The first run makes an environment for the peer, `.bench-upload-peers/` (half a minute).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import zstandard

from bench.environments import interpreter_of
from sanderling_trainer.demo.processes import free_port

ROOT = Path(__file__).parents[1]
PACKAGES = ["opentelemetry-exporter-otlp-proto-http", "opentelemetry-sdk"]
KINDS = ("sanderling", "plain", "opentelemetry")
BATCH, SMALL_BATCH = 500, 50


def run(arguments: list[str]) -> dict[str, Any]:
    """Return a row for each contender without failures, and one with them."""
    parser = argparse.ArgumentParser(prog="python -m bench upload")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--failing", type=float, default=0.3)
    options = parser.parse_args(arguments)
    interpreter = interpreter_of(".bench-upload-peers", PACKAGES, ["engine", "trainer"])
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind in KINDS:
            runs[kind].append(_run_case(interpreter, kind, options.events, BATCH, 0.0))
    rows = [{"contender": kind, "failing": 0.0, **_median(runs[kind])} for kind in KINDS]
    for kind in KINDS:
        result = _run_case(interpreter, kind, options.events // 2, SMALL_BATCH, options.failing)
        rows.append({"contender": kind, "failing": options.failing, **result})
    _table(rows)
    return {"rows": rows}


def _run_case(
    interpreter: Path, kind: str, events: int, batch: int, failing: float
) -> dict[str, float]:
    """Start a server, let a client send its events, and count what the server has."""
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "store"
        device = Path(scratch) / "device"
        port = free_port()
        store.mkdir()
        python = [str(interpreter), "-m"]
        url = f"http://127.0.0.1:{port}"
        server = subprocess.Popen(
            [*python, "bench.uploading.servers", kind, str(store), str(port), str(failing)],
            cwd=ROOT,
        )
        try:
            _meter(url)
            command = [*python, "bench.uploading.clients", kind, url, str(events), str(batch)]
            done = subprocess.run(
                [*command, str(device)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            client = json.loads(done.stdout)
            meter = _meter(url)
        finally:
            server.terminate()
            server.wait(30)
        received, distinct = _stored(store)
        return {
            "events/s": events / client["seconds"],
            "stored on the device, events/s": events / client["stored"]
            if client["stored"]
            else 0.0,
            "bytes an event": meter["bytes"] / events,
            "JSON bytes an event": client["json"] / events,
            "requests": meter["requests"],
            "lost": events - distinct,
            "stored twice": received - distinct,
        }


def _meter(url: str) -> dict[str, int]:
    """Return the counts of the server's meter; wait until the server runs."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/meter", timeout=5) as answer:
                return dict(json.loads(answer.read()))
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _stored(store: Path) -> tuple[int, int]:
    """Return how many events a server stored, and how many different ones."""
    lines = [line for path in store.glob("lines") for line in path.read_bytes().splitlines()]
    ids = [json.loads(line)["id"] for line in lines]
    for path in store.glob("segments/*/*"):
        ids += [
            json.loads(row)["event"]["id"]
            for row in zstandard.decompress(path.read_bytes()).splitlines()
        ]
    return len(ids), len(set(ids))


def _median(results: list[dict[str, float]]) -> dict[str, Any]:
    rates = [result["events/s"] for result in results]
    medians = {name: statistics.median(result[name] for result in results) for name in results[0]}
    return medians | {"low": min(rates), "high": max(rates)}


def _table(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(
            f"{row['contender']:<16}{100 * row['failing']:>4.0f} % failing"
            f"{row['events/s']:>10.0f} events/s{row['bytes an event']:>8.0f} bytes an event"
            f"{row['lost']:>7.0f} lost{row['stored twice']:>7.0f} twice",
            file=sys.stderr,
        )
