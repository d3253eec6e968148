"""The retrain job: events, a checkpoint and perhaps a new catalog in; the next checkpoint and its
off-policy report out.

Idempotent: on a CPU the same inputs and seed give the same checkpoint, or none if the release gate
holds it.
It publishes nothing, and leaves the active checkpoint as it is.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanderling.runtime.clock import Clock, SystemClock
from sanderling_trainer.evaluation.ope import HOLD, SHIP
from sanderling_trainer.jobs.night_candidate import judge, renewed_candidate, teach
from sanderling_trainer.jobs.night_inputs import NightInputs
from sanderling_trainer.jobs.retrain_options import RetrainOptions
from sanderling_trainer.jobs.unfinished import appear, unfinished
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.checkpoint import Checkpoint
from sanderling_trainer.policy.holdout_queries import queries_of

MIN_DECISIONS = 100
NOTHING_NEW = "nothing new"
FINGERPRINT = "fingerprint"
METRICS = "metrics.json"


@dataclass(frozen=True)
class RetrainResult:
    """What a retraining came to."""

    release: int
    """The next release's number."""

    verdict: str
    """The release gate's, or that there was nothing new to learn from."""

    metrics: dict[str, Any]

    written: bool
    """Whether the next release's checkpoint is there."""

    reasons: list[str] = field(default_factory=list)
    """Why the release gate does not ship it to all, or why nothing is new."""

    notes: list[str] = field(default_factory=list)
    """What a person should know about the inputs, a line each."""

    bundle: Path | None = None
    """The next release's bundle, where one was asked for."""


def retrain(
    events: str,
    source: Path,
    out: Path,
    options: RetrainOptions | None = None,
    clock: Clock | None = None,
) -> RetrainResult:
    """Learn from what is new in a store, and write the checkpoint of the next release to `out`.

    The candidate learns from all but some installs, and is judged on the new decisions of these,
    exactly as it would ship. If the release gate holds it, `out` gets only its `metrics.json`,
    unless `ship_anyway`. With fewer than 100 new decisions nothing is learned; `out` then gets the
    new catalog and popularity if the catalog changed, otherwise nothing. `out` appears whole. A
    second call after a success returns what the first one did.

    Raises `FileExistsError` where `out` holds anything else, `BusyError` where another job writes
    it, `TableError` for a faulty table, `LanguageModelError` for new texts that the checkpoint's
    language model cannot read, and `DeviceError` where cuda is asked for and not there.
    """
    out = out.absolute()
    _check_is_ours(out)
    with unfinished(out) as folder:
        night = NightInputs.read(
            events, source, options or RetrainOptions(), clock or SystemClock()
        )
        return _run(night, out, folder)


def _run(night: NightInputs, out: Path, folder: Path) -> RetrainResult:
    release = night.active.metadata.release + 1
    metrics: dict[str, Any] = {FINGERPRINT: night.fingerprint, **night.counts()}
    is_enough = night.lessons.new >= MIN_DECISIONS and night.lessons.judges > 0
    if not is_enough and not night.change:
        reasons = [_too_few(night)]
        return RetrainResult(release, NOTHING_NEW, metrics, False, reasons, night.notes)

    earlier = _finished(out, night.fingerprint)
    if earlier is not None:
        return RetrainResult(release, earlier["verdict"], earlier, True, notes=night.notes)

    candidate, metrics["popularity"] = renewed_candidate(night)
    reasons = []
    notes = list(night.notes)
    verdict = SHIP
    sentence = f"Release {release} is shipped to all: only its catalog and popularity are new."
    if is_enough:
        metrics["learning"] = teach(night, candidate)
        metrics["ope"] = judge(night, candidate)
        sentence = metrics["ope"]["sentence"]
        verdict = metrics["ope"]["gate"]["verdict"]
        reasons = metrics["ope"]["gate"]["reasons"]
    else:
        notes.append(f"only catalog and popularity are new: {_too_few(night)}")

    # People read the first lines.
    metrics = {"sentence": sentence, "verdict": verdict, **metrics}
    is_written = verdict != HOLD or night.options.ship_anyway
    _write(night, candidate if is_written else None, metrics, folder / "finished")
    appear(folder / "finished", out)
    return RetrainResult(release, verdict, metrics, is_written, reasons, notes)


def _too_few(night: NightInputs) -> str:
    found = night.lessons.new
    if found >= MIN_DECISIONS:
        return f"all {found} new decisions are of one install, so that no other one could judge"
    return (
        f"{found} usable new decisions, of at least {MIN_DECISIONS}"
        f" (dropped, old ones included: {dict(night.log.examples.dropped)})"
    )


def _write(
    night: NightInputs, candidate: Checkpoint | None, metrics: dict[str, Any], folder: Path
) -> None:
    """Write a new folder: a candidate's checkpoint or, where it is None, the metrics alone."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    if candidate is None:
        text = json.dumps(metrics, indent=1) + "\n"
        (folder / METRICS).write_text(text, encoding="utf-8")
        return

    histories = [*night.lessons.histories, *night.past.histories]
    queries = queries_of(histories, candidate.metadata.repeats)
    encoder = night.source / "encoder"
    checkpoint.save(folder, candidate, metrics, queries=queries, encoder=encoder)


def _check_is_ours(out: Path) -> None:
    """Raise `FileExistsError` where a folder holds what no retraining has written."""
    if out.exists() and any(out.iterdir()) and _fingerprint_of(out) is None:
        raise FileExistsError(
            f"{out}: expected no such folder yet, or one that `retrain` wrote; choose another --out"
        )


def _finished(out: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the metrics of the checkpoint that the same inputs have written to a folder.

    Raises `FileExistsError` where the folder has a checkpoint of other inputs.
    """
    if not (out / "policy.safetensors").exists():
        return None
    if _fingerprint_of(out) != fingerprint:
        raise FileExistsError(
            f"{out}: expected no checkpoint there, found one of other events or options;"
            " choose another --out"
        )
    return json.loads((out / METRICS).read_text(encoding="utf-8"))


def _fingerprint_of(out: Path) -> str | None:
    try:
        return json.loads((out / METRICS).read_text(encoding="utf-8")).get(FINGERPRINT)
    except (OSError, ValueError, AttributeError):
        return None
