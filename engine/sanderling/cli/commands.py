"""The commands of the engine: its own API, driven from a shell."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from sanderling.bundle import manifest as manifests
from sanderling.cli import slates, tables
from sanderling.cli.card import as_markdown, limits
from sanderling.cli.doctor import as_text, examine, is_wrong
from sanderling.cli.options import (
    ColumnNames,
    DropIncomplete,
    Json,
    TimeFormat,
    Tiny,
    Why,
    read_options,
)
from sanderling.cli.output import finish, is_quiet
from sanderling.cli.tiny import show
from sanderling.engine import Engine
from sanderling.errors import BundleError
from sanderling.events import schema as wire

SLATE_COLUMNS = ("user_id", "rank", "item_id", "score")


def recommend(
    interactions: Annotated[
        str, typer.Option(help="Log: user_id, item_id, timestamp, optional reward and kind.")
    ],
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Rank by this policy checkpoint, in float, instead of a bundle."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File for the slates: .parquet or .csv.", show_default="the terminal"),
    ] = None,
    user: Annotated[
        list[str] | None, typer.Option(help="Only for this user of the log; may be repeated.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, max=1000, help="Items on a slate.")] = 10,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Also recommend items of the user's own history.")
    ] = False,
    why: Why = False,
    columns: ColumnNames = None,
    drop_incomplete: DropIncomplete = False,
    time_format: TimeFormat = None,
    as_json: Json = False,
) -> None:
    """Replay a log through a bundle, or through a checkpoint for a first look, and write one greedy
    slate per user (user_id, rank, item_id, score); or print slates with titles, of the users named
    or of those with the latest events. The log is .csv or .csv.gz, with the trainer also .parquet,
    a folder or a URL.

    Example: sanderling recommend --bundle bundle/ --interactions log.parquet --out slates.parquet
    """
    if (bundle is None) == (checkpoint is None):
        raise typer.BadParameter("expected either --bundle or --checkpoint; give one of them")
    if why and (bundle is None or out is not None):
        raise typer.BadParameter("expected --why with --bundle and without --out")
    if out is not None:
        tables.check_output(out)
    options = read_options(columns, drop_incomplete, time_format)
    with slates.open_ranker(bundle, checkpoint, why) as ranker:
        log = tables.read_log(interactions, options)
        users = user or (None if out is not None else slates.latest_users(log))
        histories = slates.histories_of(log, users)
        with _progress(histories, is_shown=out is not None and not is_quiet()) as names:
            rows = slates.ranked(ranker, histories, names, k, keep_seen)
        text = f"{len(histories)} slates of at most {k} items by release {ranker.release} -> {out}"
        if out is not None:
            tables.write(out, SLATE_COLUMNS, rows)
        else:
            rows = slates.described(ranker, rows)
            text = slates.as_text(ranker, histories, rows)

    result: dict[str, Any] = {"users": len(histories), "rows": len(rows), "left_out": log.left_out}
    result |= {"release": ranker.release, "out": str(out or "")}
    shown = {"slates": rows} if out is None else {}
    finish(result | shown, text, as_json, is_data=out is None)


def search(
    query: Annotated[
        str, typer.Argument(help="What to look for; the last word may be unfinished.")
    ],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    state: Annotated[
        Path | None, typer.Option(help="The engine's state folder, with items added and users.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Whose taste counts.")] = None,
    where: Annotated[
        str | None, typer.Option(help="A rule that items must meet, as JSON.", metavar="JSON")
    ] = None,
    k: Annotated[int, typer.Option(min=1, max=1000, help="Items to find.")] = 10,
    as_json: Json = False,
) -> None:
    """Find items of a bundle by words, meaning and a user's taste.

    Example: sanderling search "red trail sho" --bundle bundle/
    """
    rule = None if where is None else _rule(where)
    with Engine.open(bundle, state) as engine:
        found = engine.search(query, user, k, where=rule)
    lines = [f"{item.score:6.3f}  {item.id}  {item.title}" for item in found]
    finish(found.to_dict(), "\n".join(lines) or "nothing found", as_json, is_data=True)


def _rule(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise typer.BadParameter(f"--where: expected a rule as JSON, found: {error}") from None


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
        else f"release {active} is active; nothing newer for this install"
    )
    finish({"updated_to": updated_to, "active": active}, text, as_json)


def card(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    as_json: Json = False,
) -> None:
    """Print the model card of a bundle as Markdown: what it is for, what it was trained on, how it
    ranks beside baselines, what its gate measured, and its limits.

    Example: sanderling card --bundle bundle/
    """
    manifest = manifests.read(bundle)
    try:
        result = msgspec.to_builtins(manifest) | {"limits": limits(manifest)}
        text = as_markdown(manifest)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{bundle}/manifest.json: expected the `reports` that `sanderling quantize` writes,"
            f" found others: {type(error).__name__}: {error}"
        ) from error
    finish(result, text, as_json, is_data=True)


def demo(
    tiny: Tiny = False,
    as_json: Json = False,
) -> None:
    """A first look in seconds, without training: slates of a small bundle in this package, and how
    rewards change them. The full demo comes with sanderling-trainer.

    Example: sanderling demo --tiny
    """
    if not tiny:
        raise typer.BadParameter(
            "expected --tiny; the full demo needs the lab:"
            " pip install 'sanderling-trainer[cpu,minilm]'"
        )
    show(as_json)


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


def _progress(items: Any, *, is_shown: bool) -> Any:
    file = typer.get_text_stream("stderr") if is_shown else io.StringIO()
    return typer.progressbar(items, label="recommend", file=file)
