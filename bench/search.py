"""Search by words: how well known titles are found, and how long it takes, beside other libraries.

Quality: titles of MovieLens 100K and Online Retail, queries that drop words, stop in the last one
or have a typing error; mean reciprocal rank at 10, equal titles counting as one, and the
standard error of its difference from the first contender's. Latency: 100,000
titles made of their words, all contenders in one process in turns.

    python -m bench search [quality | latency] [--queries 1000] [--contenders NAME ...]
                           [--data FOLDER] [--encoder FOLDER]

`--encoder` names a folder with encoder.onnx and tokenizer.json, such as a bundle, for the contender
that also searches by meaning. The first run makes an environment for the peers,
`.bench-search-peers/`; what is not installed there is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from bench.environments import ROOT, interpreter_of
from bench.ranking import data

PEERS = ["tantivy", "bm25s"]
NAMES = ["sanderling", "sanderling, encoder", "tantivy", "tantivy, fuzzy", "bm25s", "sqlite fts5"]


def run(arguments: list[str]) -> dict[str, Any]:
    """Return the figures of each part, and print its table."""
    options = _parser().parse_args(arguments)
    interpreter = interpreter_of(".bench-search-peers", PEERS, ["engine", "."])
    root = data.folder(options.data)
    result = {}
    for part in options.parts or ["quality", "latency"]:
        command = [interpreter, "-m", "bench.searching.worker", root, part, options.queries]
        done = subprocess.run(
            [str(word) for word in [*command, *options.contenders]],
            env=os.environ | ({"SANDERLING_ENCODER": options.encoder} if options.encoder else {}),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        )
        result[part] = json.loads(done.stdout.splitlines()[-1])
        _print_table(part, result[part])
    return result


def _print_table(part: str, figures: dict[str, Any]) -> None:
    if part == "latency":
        for name, by_kind in figures.items():
            cells = [
                f"{kind} {value['p50']:.2f}/{value['p99']:.2f} ({value['processor p50']:.2f}/"
                f"{value['processor p99']:.2f})"
                for kind, value in by_kind.items()
                if isinstance(value, dict)
            ]
            print(f"{name:>20}: ms p50/p99 (processor) {'; '.join(cells)}", file=sys.stderr)
        return
    for catalog, by_name in figures.items():
        for name, by_kind in by_name.items():
            cells = [f"{kind} {v['mrr']:.3f} ± {v['error']:.3f}" for kind, v in by_kind.items()]
            print(f"{catalog:>14} {name:>20}: {'; '.join(cells)}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench search")
    parser.add_argument("parts", nargs="*", choices=["quality", "latency"])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--contenders", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--data")
    parser.add_argument("--encoder", help="folder of encoder.onnx and tokenizer.json")
    return parser
