"""The commands for operating a collector's store: tokens, erasure, rotation of identities,
compaction.

Heavy libraries are imported when a command runs, not when it is listed.
"""

from __future__ import annotations

import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sanderling.cli.options import Json, finite
from sanderling.cli.output import finish, note
from sanderling.runtime.clock import SystemClock
from sanderling.runtime.output_paths import check_creatable
from sanderling_trainer.cli.options import StoreUrl

installs = typer.Typer(
    no_args_is_help=True,
    help=(
        "Rotate identities of cloned and incomplete installs.\n\n"
        "Example: sanderling installs rotate --store events/"
    ),
)


def collect(
    store: StoreUrl,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="SANDERLING_TOKEN",
            help="A token that all devices share, beside those of `sanderling tokens`. Use"
            " the environment variable: every user of the machine sees command lines.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="An origin whose pages may post events, such as https://shop.example; repeat it"
            " for more. Without it browsers only let pages of the collector's own origin.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Receive events from devices until stopped; each answer follows when the events are durable.

    Example: sanderling collect --store events/ --port 8080
    """
    check_address(host, port)

    from sanderling_trainer.collector.server import serve

    shown = f"[{host}]" if ":" in host else host
    note(f"serving http://{shown}:{port}, segments go to {store}; stop with Ctrl-C")
    serve(store, host, port, token, allow_origin or ())
    finish({"store": store, "stopped": True}, f"stopped; segments are in {store}", as_json)


def check_address(host: str, port: int) -> None:
    """Raise `OSError` in one line where nothing can listen: uvicorn logs that and ends the process
    by itself.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"{host} port {port}: expected an address to listen on: {reason}; choose another"
        ) from error


class Action(StrEnum):
    """What to do with tokens."""

    issue = "issue"
    revoke = "revoke"
    list = "list"
    installs = "installs"


def tokens(
    action: Annotated[
        Action,
        typer.Argument(
            help="issue prints a new token, once; revoke ends it; list names all;"
            " installs lists what one has brought."
        ),
    ],
    store: StoreUrl,
    name: Annotated[str, typer.Option(help="The device's name.")] = "",
    as_json: Json = False,
) -> None:
    """Issue, revoke and list device tokens, and what one has brought. The store keeps only hashes;
    collectors follow within ten seconds.

    Example: sanderling tokens issue --store events/ --name phone-7
    """
    from sanderling_trainer.collector import tokens as device_tokens
    from sanderling_trainer.event_log.object_store import open_store
    from sanderling_trainer.event_log.token_installs import SHOWN_DIGITS

    opened = open_store(store)
    if action is Action.list:
        listed = [
            {"name": token.name, "issued_at": token.issued_at, "hash": token.hash[:SHOWN_DIGITS]}
            for token in device_tokens.list_tokens(opened)
        ]
        lines = [f"{token['hash']}  {token['name']}" for token in listed]
        finish({"tokens": listed}, "\n".join(lines), as_json, is_data=True)
        return
    if not name:
        raise typer.BadParameter(
            f"expected a device's name to {action.value} its token, found none; add --name"
        )
    if action is Action.installs:
        from sanderling_trainer.jobs.token_report import installs_of

        found = installs_of(store, name)
        finish({"name": name, "installs": found}, "\n".join(found), as_json, is_data=True)
    elif action is Action.issue:
        token = device_tokens.issue(opened, name, SystemClock())
        finish({"name": name, "token": token}, token, as_json, is_data=True)
    else:
        device_tokens.revoke(opened, name)
        finish({"name": name, "revoked": True}, f"the token of {name} is revoked", as_json)


def erase(
    store: StoreUrl,
    install: Annotated[str, typer.Option(help="The install's id, 32 hex digits.")],
    as_json: Json = False,
) -> None:
    """Delete every line of an install from segments, dead letters and daily files, and refuse its
    uploads for good.

    Takes at least two minutes: a second pass follows once every collector has read the
    tombstone (130 s). Compaction and erasure exclude each other.

    Example: sanderling erase --store events/ --install 0123456789abcdef0123456789abcdef
    """
    from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, open_store
    from sanderling_trainer.jobs.erase import erase as run
    from sanderling_trainer.jobs.figures import pushed_figures

    with pushed_figures("erase"):
        done = run(open_store(store, JOB_TIMEOUT), install, SystemClock())
    result = {"files": done.files, "lines": done.lines, "foreign": done.foreign}
    rest = [f"{name}: not a file of the log, left unchanged" for name in done.foreign]
    finish(
        result,
        "\n".join([*rest, f"{done.lines} lines were deleted from {done.files} files"]),
        as_json,
    )


@installs.command()
def rotate(
    store: StoreUrl,
    at_most: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            callback=finite,
            help="Stop if over 100 installs, and this share, need it.",
        ),
    ] = 0.05,
    as_json: Json = False,
) -> None:
    """Give new identities to cloned and incomplete installs, whose events can no longer be used for
    training; loses no events.

    Their users become new users on the device. A lost segment must not do that to a whole fleet:
    above --at-most no install is marked, and the exit status is 1.

    Example: sanderling installs rotate --store events/
    """
    from sanderling_trainer.jobs.figures import pushed_figures
    from sanderling_trainer.jobs.rotate_identities import rotate_identities

    with pushed_figures("rotate") as figures:
        marked = rotate_identities(store, at_most)
        figures["installs"] = len(marked)
    text = "\n".join([*marked, f"{len(marked)} more installs will get new identities"])
    finish({"installs": marked}, text, as_json)


def export(
    events: Annotated[
        str, typer.Option(help="Folder, or URL of an object store, that `collect` wrote to.")
    ],
    out: Annotated[Path, typer.Option(help="Parquet file to write; an earlier one is replaced.")],
    as_json: Json = False,
) -> None:
    """Write what users did on their devices as a table of interactions, for `train` and
    `recommend`. Users are pseudonyms; answers that changed no state are left out.

    Example: sanderling export --events events/ --out interactions.parquet
    """
    check_creatable(out)
    if out.suffix != ".parquet":
        raise typer.BadParameter(f"expected --out to end in .parquet, found {out.name}")

    from sanderling_trainer.jobs.export import export as run
    from sanderling_trainer.jobs.figures import pushed_figures

    with pushed_figures("export") as figures:
        done = run(events, out)
        figures.update(events=done.rows, installs=len(done.cloned))
    result = {
        "out": str(out),
        "rows": done.rows,
        "users": len(done.users),
        "cloned": sorted(done.cloned),
    }
    lines = [f"{done.rows} interactions of {len(done.users)} users -> {out}"]
    if done.cloned:
        lines.insert(0, f"left out: {len(done.cloned)} cloned installs; run `installs rotate`")
    finish(result, "\n".join(lines), as_json)


def compact(store: StoreUrl, as_json: Json = False) -> None:
    """Turn the segments of the days before today (UTC) into daily Parquet files. Compaction
    and erasure exclude each other.

    Example: sanderling compact --store events/
    """
    from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, open_store
    from sanderling_trainer.jobs.compact import compact as run
    from sanderling_trainer.jobs.figures import pushed_figures

    with pushed_figures("compact") as figures:
        done = run(open_store(store, JOB_TIMEOUT), SystemClock())
        figures["events"] = done.events
    result = {"files": done.files, "segments": done.segments, "events": done.events}
    finish(
        result,
        f"{done.segments} segments with {done.events} events are now {done.files} daily files",
        as_json,
    )
