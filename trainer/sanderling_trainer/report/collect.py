"""Collects what the report shows from its sources, each of which may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sanderling.runtime.clock import Clock, SystemClock
from sanderling_quantize.checkpoint import CheckpointError
from sanderling_trainer.event_log import history_files
from sanderling_trainer.event_log.deduplication import PossibleTimes
from sanderling_trainer.event_log.history_table import KnownHistory
from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, open_store
from sanderling_trainer.event_log.reader import read_partitions
from sanderling_trainer.jobs.compare_arms import compare_arms
from sanderling_trainer.jobs.night_log import check_events
from sanderling_trainer.report.figures import figures_of
from sanderling_trainer.report.slot_table import SampledUser, read_slots
from sanderling_trainer.report.user_changes import (
    BundleRelease,
    CheckpointRelease,
    Release,
    changes_for_users,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Sources:
    """What a report is made of."""

    events: str | None = None
    """Folder or URL of the collector's store."""

    checkpoints: Sequence[Path] = ()
    """Folders of checkpoints."""

    bundles: Sequence[Path] = ()
    """Folders of bundles."""

    summary: Mapping[str, Any] | None = None
    """The content of the demo's summary.json."""


class _Catalog(msgspec.Struct):
    items: int = 0


class _Metrics(msgspec.Struct):
    """What the report reads of a checkpoint's metrics."""

    verdict: str = ""
    sentence: str = ""
    ope: dict[str, Any] | None = None
    ranking: list[dict[str, Any]] | None = None
    catalog: _Catalog | None = None


class _Config(msgspec.Struct):
    """What the report reads of a checkpoint's settings."""

    release: int = 0


def collect(sources: Sources, clock: Clock | None = None) -> dict[str, Any]:
    """Return the parts of the report: `summary`, `events`, `changes`, `experiments`, `checkpoints`,
    None where there is nothing.

    Raises `FileNotFoundError` where a source is missing, `EventError`, `BundleError` and
    `CheckpointError` where one is damaged.
    """
    checkpoints = sorted(map(_checkpoint, sources.checkpoints), key=lambda each: each["release"])
    bundles = sorted(map(BundleRelease, sources.bundles), key=lambda bundle: bundle.release)
    content: dict[str, Any] = {
        "summary": sources.summary,
        "checkpoints": checkpoints,
        "events": None,
        "changes": None,
        "experiments": [],
    }
    if sources.events is None:
        return content
    catalog = bundles[-1].manifest.sizes.items if bundles else _catalog(checkpoints)
    figures, sample = _read(sources.events, catalog, clock or SystemClock())
    content["events"] = figures
    pair: list[Release] = list(bundles[-2:])
    if len(pair) < 2 <= len(checkpoints):
        pair = [CheckpointRelease(Path(each["folder"])) for each in checkpoints[-2:]]
    if len(pair) == 2:
        content["changes"] = changes_for_users(sample, *pair)
    content["experiments"] = _experiments(sources.events, bundles, figures["experiments"])
    return content


def _read(events: str, catalog: int, clock: Clock) -> tuple[dict[str, Any], list[SampledUser]]:
    """Return the figures of a store, and a sample of its users."""
    check_events(events)
    known = KnownHistory.of(history_files.read(open_store(events, JOB_TIMEOUT)))
    times = PossibleTimes(newest_ms=clock.wall_ms())
    table = read_slots(map(known.restored, read_partitions(events, times=times)))
    return figures_of(table, catalog), table.sample


def _experiments(
    events: str, bundles: Sequence[BundleRelease], named: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the comparison of the arms of each experiment that decisions name."""
    by_name = {
        experiment.name: experiment
        for bundle in bundles
        if (experiment := bundle.manifest.experiment) is not None
    }
    reports = [compare_arms(events, by_name[name]) for name in named if name in by_name]
    return [asdict(report) | {"is_fair": report.is_fair} for report in reports]


def _checkpoint(folder: Path) -> dict[str, Any]:
    """Return what a checkpoint, or the folder of a held candidate, says of its learning."""
    metrics = _read_json(folder / "metrics.json", _Metrics)
    has_config = (folder / "config.json").exists()
    config = _read_json(folder / "config.json", _Config) if has_config else _Config()
    return {
        "folder": str(folder),
        "release": config.release,
        "verdict": metrics.verdict,
        "sentence": metrics.sentence,
        "ope": metrics.ope,
        "ranking": metrics.ranking,
        "items": metrics.catalog.items if metrics.catalog else 0,
    }


def _catalog(checkpoints: Sequence[Mapping[str, Any]]) -> int:
    return int(checkpoints[-1]["items"]) if checkpoints else 0


def _read_json(path: Path, type: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise FileNotFoundError(
            f"{path}: expected the metrics of a checkpoint, found no such file; check --checkpoint"
        ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path}: expected what `sanderling train` or `retrain` wrote, found another content:"
            f" {error}"
        ) from error
