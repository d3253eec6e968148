"""The device's sub-commands. Each is the engine's own API, driven from a shell."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from sanderling.cli import tables
from sanderling.cli.app import finish
from sanderling.cli.doctor import examine
from sanderling.contract import events as wire
from sanderling.engine import Engine
from sanderling.errors import TableError

SLATE_COLUMNS = ("user_id", "rank", "item_id", "score")

Json = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random; greedy slates need none.")]


def recommend(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    interactions: Annotated[Path, typer.Option(help="Log: user_id, item_id, timestamp, optional reward and kind.")],
    out: Annotated[Path, typer.Option(help="Where the slates go: .parquet or .csv.")],
    k: Annotated[int, typer.Option(min=1, max=1000, help="Items on a slate.")] = 10,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Also recommend what the user had before.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Score every user of a log through the engine: one greedy slate each (user_id, rank, item_id, score).

    Example: sanderling recommend --bundle bundle/ --interactions log.parquet --k 10 --out slates.parquet
    """
    histories = _histories(interactions)
    slates: list[dict[str, Any]] = []
    with Engine.open(bundle) as engine, typer.progressbar(histories.items(), label="recommend", file=_stderr()) as bar:
        for user, events in bar:
            for _, item, kind in sorted(events, key=lambda event: event[0]):
                engine.observe(user, item, kind)
            seen = () if keep_seen else [item for _, item, _ in events]
            slates += [
                {"user_id": user, "rank": item.slot + 1, "item_id": item.id, "score": item.score}
                for item in engine.recommend(user, k, exclude=seen, greedy=True)
            ]
    tables.write(out, SLATE_COLUMNS, slates)
    result = {"users": len(histories), "rows": len(slates), "release": engine.release, "out": str(out)}
    finish(result, f"{len(histories)} slates of at most {k} items by release {engine.release} -> {out}", as_json)


def update(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle that the app came with.")],
    state: Annotated[Path, typer.Option(help="The engine's own folder.")],
    releases: Annotated[str, typer.Option(help="URL of the signed releases.")],
    root: Annotated[Path, typer.Option(help="root.json that the app came with.")],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fetch, verify and install the newest release.

    Example: sanderling update --bundle bundle/ --state state/ --releases https://example.org/releases --root root.json
    """
    with Engine.open(bundle, state, releases=releases, root=root) as engine:
        found = engine.update()
        serving = engine.release
    result = {"updated_to": found, "serving": serving}
    finish(result, f"release {serving} serves" + ("" if found else "; nothing newer was found"), as_json)


def doctor(as_json: Json = False) -> None:
    """Say what of the engine works on this machine, which kernels run, and why; status 1 if something is wrong.

    Example: sanderling doctor --json
    """
    found = examine()
    wrong = [part for part, said in found.items() if said["state"] == "wrong"]
    finish(found, "\n".join(f"{part:<14}{said['state']:<8}{said['why']}" for part, said in found.items()), as_json)
    if wrong:
        raise typer.Exit(1)


def events(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of all that leaves the device.")
    ] = False,
) -> None:
    """Say what leaves the device: every field of every event, and nothing else is ever sent.

    Example: sanderling events --schema > events.schema.json
    """
    if not schema:
        raise typer.BadParameter("expected --schema, the one thing that can be asked")
    typer.echo(msgspec.json.format(msgspec.json.encode(msgspec.json.schema(wire.Event)), indent=1).decode())


def _histories(path: Path) -> dict[str, list[tuple[float, str, str]]]:
    histories: dict[str, list[tuple[float, str, str]]] = {}
    for number, row in enumerate(tables.rows(path, ("user_id", "item_id", "timestamp")), 1):
        event = (_time(path, number, row["timestamp"]), str(row["item_id"]), _kind(path, number, row))
        histories.setdefault(str(row["user_id"]), []).append(event)
    return histories


def _kind(path: Path, number: int, row: dict[str, Any]) -> str:
    """Return the row's kind; without one, `like`, `dislike` or `neutral` by the reward's sign, as the lab does."""
    if row.get("kind"):
        return str(row["kind"])
    if row.get("reward") in (None, ""):
        return "like"
    reward = _number(path, number, "reward", row["reward"])
    return "like" if reward > 0 else "dislike" if reward < 0 else "neutral"


def _time(path: Path, number: int, value: Any) -> float:
    return value.timestamp() if hasattr(value, "timestamp") else _number(path, number, "timestamp", value)


def _number(path: Path, number: int, column: str, value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise TableError(f"{path}: row {number}: column {column}: expected a number, found {value!r:.80}")
    return found


def _stderr() -> Any:
    return typer.get_text_stream("stderr")
