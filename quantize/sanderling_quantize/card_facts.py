"""What a bundle's model card says of its policy, from the metrics of the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

METRICS = "metrics.json"
KEPT = ("name", "ndcg@10", "recall@10", "hit_rate@10", "coverage@10")


def card_facts(checkpoint: Path) -> dict[str, Any]:
    """Return what `sanderling card` needs, as plain data; empty for a checkpoint without metrics.

    `log` has the numbers of events and users, `ranking` the tables beside baselines, `loses`
    whether a baseline ranked better where settings were chosen, `learning` and `sentence` how the
    last retraining learned and was judged; each only where it is known.
    """
    path = checkpoint / METRICS
    if not path.is_file():
        return {}
    metrics = json.loads(path.read_text(encoding="utf-8"))

    facts: dict[str, Any] = {}
    if "events" in metrics.get("log", {}):  # of `train`; that of `retrain` counts what came in
        facts["log"] = {name: metrics["log"][name] for name in ("events", "users")}
    if "ranking" in metrics:
        facts["ranking"] = [_window(window) for window in metrics["ranking"]]
    if "choice" in metrics:
        facts["loses"] = bool(metrics["choice"]["loses"])
    if "decisions" in metrics.get("learning", {}):
        facts["learning"] = {name: metrics["learning"][name] for name in ("learner", "decisions")}
    if "sentence" in metrics:
        facts["sentence"] = metrics["sentence"]
    return facts


def _window(window: dict[str, Any]) -> dict[str, Any]:
    models = [{name: model[name] for name in KEPT if name in model} for model in window["models"]]
    return {"protocol": window["protocol"], "users": window["users"], "models": models}
