"""`train`, `evaluate` and `retrain` for Python, which the commands call too.

A table is a path, a URL, a folder of Parquet or CSV files, an Arrow table, or a frame of pandas or
polars. Torch is imported after tables and options have been checked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanderling.bundle import manifest
from sanderling.runtime.output_paths import check_folder, check_new
from sanderling.tables.event_log import ReadOptions

if TYPE_CHECKING:
    from sanderling_trainer.data.files import Source
    from sanderling_trainer.jobs.retrain import RetrainResult
    from sanderling_trainer.jobs.retrain_options import RetrainOptions

DAY_S = 86_400
"""Seconds of a day: a device's clock may be ahead by as much."""


@dataclass(frozen=True)
class TrainResult:
    """A checkpoint that was trained."""

    checkpoint: Path
    """Its folder, for `sanderling_quantize.quantize` and `retrain`."""

    release: int
    """Its number."""

    metrics: dict[str, Any]
    """How it ranks and what was chosen, as in its metrics.json."""

    seconds: dict[str, float]
    """Of each stage."""


@dataclass(frozen=True)
class Evaluation:
    """How good slates were."""

    k: int
    """The cut-off rank of the metrics."""

    users: int
    """Users with a slate and something that they liked later."""

    metrics: dict[str, Any]
    """`ndcg@k`, `recall@k`, `hit_rate@k` and `mrr@k`, each a `value` with the bounds `low` and
    `high` of a 95 % bootstrap interval over users; `coverage@k`, and counts of users."""


def train(
    interactions: Source,
    out: str | Path,
    items: Source | None = None,
    *,
    parent: str | Path | None = None,
    tables: ReadOptions | None = None,
    schema: str | Path | Mapping[str, Any] | None = None,
    config: str | Path | None = None,
    **settings: Any,
) -> TrainResult:
    """Train a policy on a log, and write its checkpoint into the folder `out`.

    interactions: columns `user_id`, `item_id`, `timestamp` (seconds since 1970 or ISO 8601, without
        a zone UTC), optional `reward` (-1 to 1, 1 unless given), `kind`, `context` (text).
    items: columns `item_id`, `text`, optional `title`; other columns are attributes. By default the
        items of the log, which then needs `text`.
    parent: the checkpoint of the release before, whose number and app go on; nothing else of it is
        used.
    tables: other names of columns, and how incomplete rows and times in text are read.
    schema: the types of the items' attributes, as a path or a mapping; by default schema.toml
        beside the table of items (docs/ATTRIBUTES.md).
    config: a TOML file of settings; `sanderling train --print-config` prints one.
    settings: fields of `sanderling_trainer.policy.model.config.Config` and of
        `sanderling_trainer.policy.train_options.TrainOptions`, which go before the file's, such as
        `app="shop"`, `epochs=6`, `device="cpu"`.

    What neither file nor arguments set is chosen on inner windows of the log. An interrupted fit
    resumes when the same call is repeated.

    Raises `TableError` that names file, row and column of a wrong cell; `ValueError` for an unknown
    or wrong setting; `OSError` where `out` cannot be written; `ModuleNotFoundError` where a setting
    needs an extra; `LanguageModelError`, `DeviceError` where model or GPU are missing.
    """
    from sanderling_trainer.policy.lineage import lineage
    from sanderling_trainer.policy.model.language_model_files import check_files
    from sanderling_trainer.policy.settings_file import combined

    out = Path(out)
    check_folder(out)
    policy, options, given = combined(config, settings)
    options.check_extras()
    check_files(policy.language_model)
    app, before = lineage(Path(parent) if parent else None, given.get("app"), out)

    from sanderling_trainer.data.files import read_source
    from sanderling_trainer.data.schema import find_schema
    from sanderling_trainer.data.tables import read_catalog, read_interactions
    from sanderling_trainer.evaluation.inner_windows import check_liked, cut_after

    events = read_source(interactions)
    declared = find_schema(interactions if items is None else items, schema)
    catalog = read_catalog(events if items is None else items, tables, declared.items)
    log = read_interactions(events, catalog, _latest(), options=tables, context=declared.context)
    check_liked(cut_after(log, 1.0 - options.holdout, 1.0))

    from sanderling_trainer.policy.train import train as run

    trained = run(catalog, log, out, policy, **vars(replace(options, app=app, parent=before)))
    return TrainResult(out, before + 1, trained.metrics, trained.seconds)


def _latest() -> int:
    """Return the last second that an event of a log may have."""
    return int(time.time()) + DAY_S


def evaluate(
    slates: Source,
    interactions: Source,
    items: Source | None = None,
    *,
    k: int = 10,
    tables: ReadOptions | None = None,
    seed: int = 0,
) -> Evaluation:
    """Return how well slates rank what users liked later, in the full ranking.

    slates: columns `user_id`, `rank` (from 1), `item_id`, `score`, as `sanderling recommend` writes
        them.
    interactions: the later log, `user_id`, `item_id`, optional `reward`; liked is what has a reward
        above 0, or all without rewards.
    items: the catalog, for the coverage; by default the items of the two tables.
    k: the cut-off rank of the metrics.
    tables: other names of columns of log and items, and how incomplete rows are read.

    Raises `TableError` that names file, row and column of a wrong cell, and
    `NothingToEvaluateError` where no user has both a slate and a liked item.
    """
    import numpy as np

    from sanderling_trainer.data.tables import read_catalog, read_likes, read_slates
    from sanderling_trainer.evaluation.metrics import evaluate as metrics_of

    shown = read_slates(slates)
    liked = read_likes(interactions, tables)
    if items is None:
        count = len(set().union(*shown.values(), *liked.values()))
    else:
        count = len(read_catalog(items, tables))
    metrics = metrics_of(shown, liked, k, count, np.random.default_rng(seed))
    return Evaluation(k, metrics["users"], metrics)


def retrain(
    events: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    *,
    bundle: str | Path | None = None,
    encoder: str = "small",
    encoder_of: str | Path | None = None,
    threads: int | None = None,
    **options: Any,
) -> RetrainResult:
    """Learn from what devices have reported since a release; write the next checkpoint to `out`.

    events: the folder, or URL of an object store, that the collector writes to.
    checkpoint: of the active release; it stays as it is.
    out: a folder that does not exist yet, or that the same call has written before.
    bundle: a folder for the next release's bundle, if it is to be built too.
    encoder, encoder_of: of that bundle, as in `sanderling_quantize.quantize`.
    threads: as many as there are cores unless given.
    options: fields of `sanderling_trainer.jobs.retrain_options.RetrainOptions`: `items` (the
        catalog from now on) and `interactions` (the log from before the devices) are tables as in
        `train`, `schema` is that of `items`; `tables`, `days`, `ship_anyway`, `device`, `seed`.

    The result says whether the candidate is `written`, the release gate's `verdict` (ship, canary,
    hold, or nothing new), and why. After an error, or when it was killed, call it again.

    Raises `FileExistsError` where `out` or `bundle` hold anything else, `TableError` for a wrong
    table, `LanguageModelError` for new texts that the checkpoint's language model cannot read,
    `CheckpointError` or `BundleError` for a damaged folder, `BusyError` where another job writes
    `out`, `GateError` where the bundle does not pass its gate, `DeviceError` for a missing GPU, and
    `TypeError` or `ValueError` for a wrong option.
    """
    from sanderling_quantize.checkpoint import check_complete

    out, target = Path(out), Path(bundle) if bundle is not None else None
    copied = Path(encoder_of) if encoder_of is not None else None
    check_folder(out)
    is_built = _check_bundles(target, copied, out)
    wanted = _retrain_options(options)
    check_complete(Path(checkpoint))

    from sanderling_quantize.build_bundle import build
    from sanderling_quantize.encoders.build_encoder import Encoding
    from sanderling_quantize.threads import use_threads
    from sanderling_trainer.jobs.retrain import retrain as run

    use_threads(threads)
    encoding = Encoding(encoder, seed=wanted.seed)
    done = run(str(events), Path(checkpoint), out, wanted)
    if target is None or not done.written:
        return done
    if not is_built:
        build(out, target, encoding=encoding, encoder_of=copied, previous=copied)
    return replace(done, bundle=target)


def _retrain_options(options: dict[str, Any]) -> RetrainOptions:
    """Return options whose table of items has been read and checked."""
    from sanderling_trainer.jobs.retrain_options import RetrainOptions

    wanted = RetrainOptions(**options)
    if wanted.items is None:
        return wanted
    from sanderling_trainer.data.files import read_source
    from sanderling_trainer.data.tables import read_items

    wanted = replace(wanted, items=read_source(wanted.items))
    read_items(wanted.items, wanted.tables)
    return wanted


def _check_bundles(target: Path | None, encoder_of: Path | None, checkpoint: Path) -> bool:
    """Return whether the bundle to build is there already.

    Raises `OSError` or `BundleError` where it could not be built after the training.
    """
    from sanderling.bundle.reader import Bundle

    is_built = target is not None and _is_built(target, checkpoint)
    if target is not None and not is_built:
        check_new(target)
    if encoder_of is not None:
        Bundle.open(encoder_of, verify=True)
    return is_built


def _is_built(bundle: Path, checkpoint: Path) -> bool:
    """Return whether a bundle was made of a checkpoint, by a call that was then cut off."""
    try:
        settings = json.loads((checkpoint / "config.json").read_bytes())
    except OSError:
        return False
    if not bundle.exists():
        return False
    found = manifest.read(bundle)
    made = found.release, found.lineage.data_sha256
    return made == (settings["release"], settings["data_sha256"])
