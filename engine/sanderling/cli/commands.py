"""The commands of the engine: its own API, driven from a shell."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from sanderling.bundle import manifest
from sanderling.cli import tables
from sanderling.cli.doctor import as_text, examine, is_wrong
from sanderling.cli.options import (
    ColumnNames,
    DropIncomplete,
    Json,
    TimeFormat,
    read_options,
)
from sanderling.cli.output import finish, is_quiet
from sanderling.engine import Engine
from sanderling.events import schema as wire

SLATE_COLUMNS = ("user_id", "rank", "item_id", "score")


def recommend(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    interactions: Annotated[
        str,
        typer.Option(help="Log: user_id, item_id, timestamp, optional reward and kind."),
    ],
    out: Annotated[Path, typer.Option(help="File for the slates: .parquet or .csv.")],
    k: Annotated[int, typer.Option(min=1, max=1000, help="Items on a slate.")] = 10,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Also recommend items of the user's own history.")
    ] = False,
    columns: ColumnNames = None,
    drop_incomplete: DropIncomplete = False,
    time_format: TimeFormat = None,
    as_json: Json = False,
) -> None:
    """Replay a log through the engine and write one greedy slate per user (user_id, rank, item_id,
    score). The log is .csv or .csv.gz, with the trainer also .parquet, a folder or a URL.

    Example: sanderling recommend --bundle bundle/ --interactions log.parquet --out slates.parquet
    """
    tables.check_output(out)
    manifest.read(bundle)  # a folder without a bundle is named before the log is read
    log = tables.read_log(interactions, read_options(columns, drop_incomplete, time_format))
    histories: dict[str, list[tuple[str, str]]] = {}
    for user, item, kind in zip(log.users, log.items, log.kinds, strict=True):
        histories.setdefault(user, []).append((item, kind))
    slates: list[dict[str, Any]] = []

    with Engine.open(bundle) as engine, _progress(histories.items()) as bar:
        for user, events in bar:
            for item, kind in events:
                engine.observe(user, item, kind)

            seen = () if keep_seen else [item for item, _ in events]
            slates += [
                {"user_id": user, "rank": item.slot + 1, "item_id": item.id, "score": item.score}
                for item in engine.recommend(user, k, exclude=seen, greedy=True)
            ]

    tables.write(out, SLATE_COLUMNS, slates)
    result = {
        "users": len(histories),
        "rows": len(slates),
        "left_out": log.left_out,
        "release": engine.release,
        "out": str(out),
    }
    finish(
        result,
        f"{len(histories)} slates of at most {k} items by release {engine.release} -> {out}",
        as_json,
    )


def update(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle that the app ships with.")],
    state: Annotated[Path, typer.Option(help="The engine's state folder.")],
    releases: Annotated[str, typer.Option(help="URL of the signed releases.")],
    root: Annotated[Path, typer.Option(help="The root.json that the app ships with.")],
    as_json: Json = False,
) -> None:
    """Fetch, verify and install the newest release.

    Example: sanderling update --bundle app/ --state state/ --releases http://host/ --root root.json
    """
    with Engine.open(bundle, state, releases=releases, root=root) as engine:
        updated_to = engine.update()
        active = engine.release

    text = (
        f"updated; release {active} is active"
        if updated_to
        else f"release {active} is active, and is the newest"
    )
    finish({"updated_to": updated_to, "active": active}, text, as_json)


def doctor(as_json: Json = False) -> None:
    """Check which engine features work here, and which kernels run; exits with 1 if something is
    wrong.

    Example: sanderling doctor --json
    """
    report = examine()
    finish(report, as_text(report), as_json)

    if is_wrong(report):
        raise typer.Exit(1)


def events(
    schema: Annotated[
        bool,
        typer.Option(
            "--schema", help="Print the JSON Schema of every event that can leave the device."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what can leave the device: every field of every event. Nothing else is ever sent.

    Example: sanderling events --schema
    """
    if not schema:
        raise typer.BadParameter(
            "expected --schema, the only question that this command answers; add it"
        )

    content = msgspec.json.schema(wire.Event)
    text = msgspec.json.format(msgspec.json.encode(content), indent=1).decode()
    finish(content, text, as_json, is_data=True)


def _progress(items: Any) -> Any:
    file = typer.get_text_stream("stderr") if not is_quiet() else io.StringIO()
    return typer.progressbar(items, label="recommend", file=file)
