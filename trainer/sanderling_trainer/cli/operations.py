"""The sub-commands of those who run a collector: tokens, erasure, renewal, compaction."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from sanderling.cli.app import finish
from sanderling.clock import SystemClock
from sanderling_trainer.cli.lab import Json, Seed

Place = Annotated[str, typer.Option(help="Folder, or object store's URL, that `collect` writes.")]


class Action(StrEnum):
    """What to do with tokens."""

    issue = "issue"
    revoke = "revoke"
    list = "list"


def tokens(
    action: Annotated[Action, typer.Argument(help="issue prints a new token once; revoke ends it; list names all.")],
    store: Place,
    name: Annotated[str, typer.Option(help="The device's name.")] = "",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Issue, revoke and list the tokens of devices. The store has only hashes; collectors know within ten seconds.

    Example: sanderling tokens issue --store events/ --name phone-7
    """
    from sanderling_trainer.data.store import open_store
    from sanderling_trainer.fleet import tokens as kept

    place = open_store(store)
    if action is Action.list:
        found = [{"name": token.name, "issued_at": token.issued_at} for token in kept.listed(place)]
        finish({"tokens": found}, "\n".join(str(token["name"]) for token in found), as_json)
        return
    if not name:
        raise typer.BadParameter(f"expected the device's name to {action.value} a token, found none; give --name")
    if action is Action.issue:
        token = kept.issue(place, name, SystemClock())
        finish({"name": name, "token": token}, token, as_json)
    else:
        kept.revoke(place, name)
        finish({"name": name, "revoked": True}, f"the token of {name} is revoked", as_json)


def erase(
    store: Place,
    install: Annotated[str, typer.Option(help="The install's id, 32 hex digits.")],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Remove every line of an install from segments, dead letters and daily files; refuse its uploads for ever.

    Takes at least two minutes: a second pass comes after all collectors know. One job works on a store at a time.

    Example: sanderling erase --store events/ --install 0123456789abcdef0123456789abcdef
    """
    from sanderling_trainer.data.store import JOB_TIMEOUT, open_store
    from sanderling_trainer.fleet.erase import erase as run

    done = run(open_store(store, JOB_TIMEOUT), install, SystemClock())
    result = {"files": done.files, "lines": done.lines, "foreign": done.foreign}
    rest = [f"{name}: not a file of the log, left alone" for name in done.foreign]
    finish(result, "\n".join([*rest, f"{done.lines} lines are gone from {done.files} files"]), as_json)


def renew(
    store: Place,
    at_most: Annotated[float, typer.Option(help="Stop where over 100, and a larger share of all, are.")] = 0.05,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Make the devices of doubled and incomplete installs begin anew under other names; nothing that waits is lost.

    The users of each become strangers to their device, so that a lost segment must not renew a whole fleet: then nobody
    is marked, and the exit status is 1.

    Example: sanderling renew --store events/
    """
    from sanderling_trainer.fleet.renew import renew as run

    found = run(store, at_most)
    text = "\n".join([*found, f"{len(found)} installs more are to take other names"])
    finish({"installs": found}, text, as_json)


def compact(store: Place, seed: Seed = 0, as_json: Json = False) -> None:
    """Turn the segments of the days before today (UTC) into daily Parquet. One job works on a store at a time.

    Example: sanderling compact --store events/
    """
    from sanderling_trainer.data.store import JOB_TIMEOUT, open_store
    from sanderling_trainer.fleet.compact import compact as run

    done = run(open_store(store, JOB_TIMEOUT), SystemClock())
    result = {"files": done.files, "segments": done.segments, "events": done.events}
    finish(result, f"{done.segments} segments with {done.events} events are {done.files} daily files now", as_json)
