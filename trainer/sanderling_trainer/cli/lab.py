"""The commands that train, evaluate and report.

Heavy libraries are imported when a command runs, not when it is listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanderling.cli.options import (
    ColumnNames,
    DropIncomplete,
    Json,
    Seed,
    Threads,
    TimeFormat,
    Tiny,
    read_options,
)
from sanderling.cli.output import finish, note
from sanderling.cli.tiny import show
from sanderling.runtime.output_paths import check_folder
from sanderling_trainer.cli.choice_table import trained_text
from sanderling_trainer.cli.options import (
    AppName,
    Cluster,
    CountedItems,
    DeviceOption,
    Dropout,
    EarlierLog,
    Encoder,
    EncoderOf,
    Epochs,
    Holdout,
    HorizonDays,
    InteractionLog,
    ItemsOrLog,
    LanguageModelOption,
    LaterLog,
    Lora,
    MLflowExperiment,
    NextItems,
    OwnItems,
    OwnLog,
    PageBundle,
    PagePort,
    Parent,
    PrintConfig,
    SchemaFile,
    SettingsFile,
    ShipAnyway,
    TeachingDays,
    TrainAnyway,
    TrainDevice,
    TrainSeed,
    VisitHours,
    WandbProject,
    Web,
    duration,
    seconds_of,
)
from sanderling_trainer.cli.page import show_page
from sanderling_trainer.cli.report_page import written_report
from sanderling_trainer.policy.model.device import Device

if TYPE_CHECKING:
    from sanderling.tables.event_log import ReadOptions
    from sanderling_trainer.api import TrainResult
    from sanderling_trainer.jobs.retrain import RetrainResult


def train(
    interactions: InteractionLog,
    out: Annotated[Path, typer.Option(help="Folder of the policy checkpoint to write.")],
    items: ItemsOrLog = None,
    schema: SchemaFile = None,
    columns: ColumnNames = None,
    drop_incomplete: DropIncomplete = False,
    time_format: TimeFormat = None,
    config: SettingsFile = None,
    print_config: PrintConfig = False,
    language_model: LanguageModelOption = None,
    train_anyway: TrainAnyway = None,
    app: AppName = None,
    parent: Parent = None,
    holdout: Holdout = None,
    lora: Lora = None,
    cluster: Cluster = None,
    device: TrainDevice = None,
    threads: Threads = None,
    visit_hours: VisitHours = None,
    horizon_days: HorizonDays = None,
    dropout: Dropout = None,
    epochs: Epochs = None,
    wandb: WandbProject = None,
    mlflow: MLflowExperiment = None,
    seed: TrainSeed = None,
    as_json: Json = False,
) -> None:
    """Train a policy from two tables, or from a log with texts. What is not given is chosen on
    inner windows of the log.

    It is release 1, or with --parent the one after that checkpoint's. Nothing else of the parent is
    used.

    Example: sanderling train --items items.parquet --interactions log.parquet --out checkpoint/
    """
    from sanderling_trainer.api import train as run

    tables = read_options(columns, drop_incomplete, time_format)
    settings: dict[str, Any] = {
        "schema": schema,
        "language_model": language_model,
        "train_anyway": train_anyway,
        "app": app,
        "holdout": holdout,
        "lora": lora,
        "cluster": cluster,
        "device": device,
        "threads": threads,
        "visit_hours": visit_hours,
        "horizon_days": horizon_days,
        "dropout": dropout,
        "epochs": epochs,
        "wandb": wandb,
        "mlflow": mlflow,
        "seed": seed,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    done = run(interactions, out, items, parent=parent, tables=tables, config=config, **given)
    _finish_training(done, out, as_json)


def _finish_training(done: TrainResult, out: Path, as_json: bool) -> None:
    """Print what was chosen, and the metrics, release and seconds of a training."""
    result = {
        "out": str(out),
        "release": done.release,
        "seconds": done.seconds,
        "metrics": done.metrics,
    }
    text = f"{trained_text(done.metrics)}\ncheckpoint of release {done.release} -> {out}"
    finish(result, text, as_json)


def evaluate(
    slates: Annotated[str, typer.Option(help="Slates: user_id, rank, item_id, score.")],
    interactions: LaterLog,
    items: CountedItems = None,
    k: Annotated[int, typer.Option(min=1, max=1000, help="Cut-off rank k of the metrics.")] = 10,
    columns: ColumnNames = None,
    drop_incomplete: DropIncomplete = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Evaluate slates by what users liked later: full ranking, with bootstrap intervals over users.

    Example: sanderling evaluate --slates slates.parquet --interactions later.parquet
    """
    from sanderling_trainer.api import evaluate as run

    tables = read_options(columns, drop_incomplete)
    done = run(slates, interactions, items, k=k, tables=tables, seed=seed)
    ndcg = done.metrics[f"ndcg@{k}"]
    interval = f"[{ndcg['low']:.4f}, {ndcg['high']:.4f}]"
    finish(
        done.metrics,
        f"nDCG@{k} {ndcg['value']:.4f} {interval} over {done.users} users",
        as_json,
    )


def retrain(
    events: Annotated[
        str, typer.Option(help="Folder, or URL of an object store, that `collect` wrote to.")
    ],
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint of the active policy.")],
    out: Annotated[Path, typer.Option(help="Folder of the next checkpoint.")],
    items: NextItems = None,
    interactions: EarlierLog = None,
    schema: SchemaFile = None,
    columns: ColumnNames = None,
    drop_incomplete: DropIncomplete = False,
    time_format: TimeFormat = None,
    days: TeachingDays = 7.0,
    bundle: Annotated[Path | None, typer.Option(help="Also build the next bundle here.")] = None,
    encoder: Annotated[Encoder, typer.Option(help="Size of the bundle's encoder.")] = Encoder.small,
    encoder_of: EncoderOf = None,
    ship_anyway: ShipAnyway = False,
    device: DeviceOption = Device.auto,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Learn from what devices have reported since the active release, and from a new catalog.

    The candidate is judged off policy on devices that it did not learn from: ship it to all, try it
    on a few per cent of the devices (canary), or hold it. The exit status is 0 if there is a next
    release, 3 if it is held (metrics.json says why, and there is no checkpoint), 4 if there is
    nothing new, and 1 for an error. After an error, or when it was killed, run it again.

    Example: sanderling retrain --events events/ --checkpoint active/ --out next/ --bundle new/
    """
    from sanderling_trainer.api import retrain as run
    from sanderling_trainer.jobs.figures import pushed_figures

    with pushed_figures("retrain") as figures:
        done = run(
            events,
            checkpoint,
            out,
            bundle=bundle,
            encoder=encoder.value,
            encoder_of=encoder_of,
            threads=threads,
            seed=seed,
            items=items,
            interactions=interactions,
            schema=schema,
            tables=read_options(columns, drop_incomplete, time_format),
            days=days,
            ship_anyway=ship_anyway,
            device=device,
        )
        figures.update(_retrain_figures(done))
    finish(_retrain_result(done, out), _retrain_text(done, out), as_json)
    if not done.written:
        from sanderling_trainer.jobs.retrain import NOTHING_NEW

        raise typer.Exit(4 if done.verdict == NOTHING_NEW else 3)


def _retrain_figures(done: RetrainResult) -> dict[str, float]:
    """Return what a retraining pushes to Prometheus."""
    from sanderling_quantize.build_bundle import texts_outside
    from sanderling_trainer.evaluation.ope import HOLD

    figures = {
        "release": done.release,
        "new_decisions": done.metrics["lessons"]["new_decisions"],
        "held": done.verdict == HOLD,
    }
    outside = texts_outside(done.bundle) if done.bundle else None
    return figures if outside is None else {**figures, "texts_outside_share": outside}


def _retrain_result(done: RetrainResult, out: Path) -> dict[str, Any]:
    """Return what `retrain --json` prints."""
    return {
        "sentence": done.metrics.get("sentence", ""),
        "verdict": done.verdict,
        "release": done.release,
        "out": str(out),
        "bundle": str(done.bundle or ""),
        "written": done.written,
        "held": done.reasons,
        "notes": done.notes,
        "metrics": done.metrics,
    }


def _retrain_text(done: RetrainResult, out: Path) -> str:
    """Return the text of a retraining: the verdict, its table, what to know, the checkpoint."""
    lines = [done.metrics.get("sentence", ""), *_differences(done.metrics.get("ope", {}))]
    lines += [f"{done.verdict}: {reason}" for reason in done.reasons]
    lines += [_unfit(done.metrics["log"]), _anomalous(done.metrics["anomalies"]), *done.notes]
    if done.written:
        lines.append(f"checkpoint of release {done.release} -> {out}")
    else:
        lines.append(f"no checkpoint of release {done.release}")
    if done.written and done.verdict == "canary":
        lines.append(
            "publish it with `sanderling release publish --percent 5`, keep the active checkpoint,"
            " and let `sanderling release canary` decide"
        )
    return "\n".join(filter(None, lines))


def _differences(report: Mapping[str, Any]) -> list[str]:
    """Return the table of the difference by the families of weights that have enough data."""
    return [
        f"{row['family']:<12}{100 * row['value']:>+7.1f} %  ± {196 * row['error']:.1f}"
        f"  {row['ess']:,.0f} effective decisions"
        for row in report.get("families", [])
        if row["ess"] >= report["gate"]["thresholds"]["min_ess"]
    ]


def _unfit(log: Mapping[str, Any]) -> str:
    """Say how to repair installs that cannot be learned from."""
    unfit = len({*log["incomplete"], *log["cloned"]})
    return (
        f"left out: {unfit} incomplete or cloned installs; run `sanderling installs rotate`"
        if unfit
        else ""
    )


def _anomalous(anomalies: Sequence[Mapping[str, Any]]) -> str:
    """Name the worst of the installs that count for less than half of what they sent."""
    if not anomalies:
        return ""
    worst = anomalies[0]
    return (
        f"bounded: {len(anomalies)} installs count for less than half of what they sent; the worst,"
        f" {worst['install']}, sent {worst['share_of_events']:.1%} of all events"
    )


def report(
    out: Annotated[Path, typer.Option(help="HTML page to write.")],
    events: Annotated[
        str | None, typer.Option(help="Folder or URL of the collector's store.")
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="Bundle of a release; two show slates of three users before and after."),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoint of a release, or the folder of a held candidate."),
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="The demo's summary.json.")] = None,
    as_json: Json = False,
) -> None:
    """Write one page for people: is the latest release better than before, is anything lost, what
    to do. Give any of the sources; a section without its source is left out.

    Example: sanderling report --summary demo/summary.json --out report.html
    """
    if events is None and not checkpoint and summary is None:
        raise typer.BadParameter("expected --events, --checkpoint or --summary, found none of them")
    result, text = written_report(out, events, bundle or [], checkpoint or [], summary)
    finish(result, text, as_json)


def demo(
    tiny: Tiny = False,
    web: Web = False,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for everything that the demo makes; what it made before is replaced."
        ),
    ] = Path("demo"),
    items: OwnItems = None,
    interactions: OwnLog = None,
    columns: ColumnNames = None,
    drop_incomplete: DropIncomplete = False,
    time_format: TimeFormat = None,
    collector_down: Annotated[
        str,
        typer.Option(
            callback=duration,
            help="Stop the collector for this duration when devices first upload, e.g. 20s.",
        ),
    ] = "0s",
    kill_device: Annotated[
        bool,
        typer.Option("--kill-device", help="Kill devices while they run, and start them again."),
    ] = False,
    bundle: PageBundle = None,
    port: PagePort = 8765,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run five nights of the full loop with simulated people, whose tastes are fitted to a log:
    devices, collect, retrain, release gate, release, devices again; and report whether it learns.
    With --tiny a first look in seconds; with --web a page that learns in the browser.

    Example: sanderling demo --out demo/ --collector-down 20s --kill-device
    """
    if tiny:
        show(as_json)
        return
    if web:
        show_page(out, bundle, port, as_json)
        return

    check_folder(out)
    tables = read_options(columns, drop_incomplete, time_format)
    # Wrong tables are named before torch is imported, and before earlier results are replaced.
    _check_own_tables(items, interactions, tables)

    from sanderling_trainer.demo.people import PeopleSettings
    from sanderling_trainer.demo.run import Demo, DemoSettings
    from sanderling_trainer.policy.model.config import Config

    settings = DemoSettings(
        seconds_of(collector_down),
        kill_device,
        config=replace(Config(), seed=seed),
        people=PeopleSettings(seed=seed),
    )
    finished = Demo(out, settings, note).run(items, interactions, tables)
    finish(finished.summary, finished.text, as_json)


def _check_own_tables(items: str | None, interactions: str | None, options: ReadOptions) -> None:
    """Read the two tables, if given; raise `BadParameter` where one is given without the other."""
    if items is not None and interactions is not None:
        from sanderling_trainer.data.tables import read_catalog, read_interactions

        read_interactions(interactions, read_catalog(items, options), options=options)
    if (items is None) != (interactions is None):
        given, missing = (
            ("--interactions", "--items") if items is None else ("--items", "--interactions")
        )
        raise typer.BadParameter(
            f"expected both --items and --interactions, found {given} alone; add {missing}"
        )
