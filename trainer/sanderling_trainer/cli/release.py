"""`sanderling release`: the signed repository that devices fetch bundles from.

Heavy libraries are imported when a command runs, not when it is listed.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanderling.cli.options import Json
from sanderling.cli.output import finish, note
from sanderling.runtime.clock import SystemClock
from sanderling_trainer.cli import canary
from sanderling_trainer.cli.options import Keys, Repository, RootKeys, finite_or_none

if TYPE_CHECKING:
    from sanderling_trainer.event_log.object_store import ObjectStore
    from sanderling_trainer.releases.keys import KeyFolder
    from sanderling_trainer.releases.repository import ReleaseRepository
    from sanderling_trainer.releases.status import Status

PASSWORD_VARIABLE = "SANDERLING_ROOT_PASSWORD"
MIN_PASSWORD = 12
"""Characters: whoever finds a root key file can try passwords for as long as they like."""

Percent = Annotated[
    int, typer.Option(min=1, max=100, help="Percentage of the installs that get the release.")
]
Release = Annotated[int, typer.Option(min=1, help="Number of a published release.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--root-password-file",
        help="File with the root keys' password.",
        show_default=f"${PASSWORD_VARIABLE}, or asked for",
    ),
]


class KeyName(StrEnum):
    """The keys by name, as in `releases.keys`, which an image of the collector cannot import."""

    root_1 = "root-1"
    root_2 = "root-2"
    root_3 = "root-3"
    targets = "targets"
    snapshot = "snapshot"
    timestamp = "timestamp"


app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Publish signed releases, and keep their signatures valid.\n\n"
        "Example: sanderling release status --repository repo/ --keys keys/"
    ),
)

app.command()(canary.canary)
app.command()(canary.again)


@app.command()
def init(
    repository: Repository,
    keys: Keys,
    root_keys: RootKeys,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Make keys and an empty repository; the app ships its root.json. No other command makes keys
    that devices trust from the start.

    Two of the three root keys replace a lost or stolen key. They are encrypted under a password;
    take their folder off line. Keys that the folders have already, as files or as signers
    elsewhere (KMS, Vault), are used. A call that was killed can be repeated.

    Example: sanderling release init --repository repo/ --keys keys/ --root-keys root-keys/
    """
    from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, open_store
    from sanderling_trainer.releases.create import ROOT_FILE, create_repository

    store = open_store(repository, JOB_TIMEOUT)
    online = _online_keys(keys)
    create_repository(store, online, _root_keys(root_keys, password_file, is_new=True))

    root = store.location(ROOT_FILE)
    lines = [
        f"a repository is in {repository}; ship {root} with the app, and take {root_keys} off line"
    ]
    _finish(store, online, lines, {"root": root, "root_keys": str(root_keys)}, as_json)


@app.command()
def publish(
    bundle: Annotated[Path, typer.Option(help="Folder of the finished bundle.")],
    repository: Repository,
    keys: Keys,
    percent: Percent = 100,
    as_json: Json = False,
) -> None:
    """Sign a bundle and publish it as the newest release; any web server can serve the repository.

    A bundle that is published already changes nothing, its percentage included. One that does not
    compute its golden vectors is refused.

    Example: sanderling release publish --bundle releases/2 --repository repo/ --keys keys/
    """
    from sanderling_trainer.jobs.figures import pushed_figures

    opened = _open(repository, keys)
    with pushed_figures("publish") as figures:
        done = opened.publish(bundle, percent)
        figures["release"] = done.release
    before = "" if done.is_new else "already "
    lines = [f"release {done.release} is {before}published to {done.percent} % of the installs"]
    if not done.is_new and done.percent != percent:
        lines.append("nothing was changed; change the percentage with `sanderling release rollout`")
    result = {"release": done.release, "percent": done.percent, "new": done.is_new}
    _finish(opened.store, _online_keys(keys), lines, result, as_json)


@app.command()
def rollout(
    release: Release, percent: Percent, repository: Repository, keys: Keys, as_json: Json = False
) -> None:
    """Change the percentage of installs that get a published release. Installs that have it keep
    it.

    Example: sanderling release rollout --release 2 --percent 50 --repository repo/ --keys keys/
    """
    opened = _open(repository, keys)
    opened.set_rollout(release, percent)
    lines = [f"release {release} goes to {percent} % of the installs"]
    _finish(
        opened.store, _online_keys(keys), lines, {"release": release, "percent": percent}, as_json
    )


@app.command()
def withdraw(release: Release, repository: Repository, keys: Keys, as_json: Json = False) -> None:
    """Offer a release to no more installs. Those that have it keep it until a higher number, or
    `rollback` in the app, replaces it.

    Example: sanderling release withdraw --release 2 --repository repo/ --keys keys/
    """
    opened = _open(repository, keys)
    opened.set_rollout(release, 0)
    lines = [f"release {release} is withdrawn; installs that have it keep it until the next one"]
    _finish(opened.store, _online_keys(keys), lines, {"release": release, "percent": 0}, as_json)


@app.command()
def refresh(
    repository: Repository,
    keys: Keys,
    if_within: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            callback=finite_or_none,
            help="Only roles that expire within N days.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign the metadata again so that it does not expire; run it every day.

    Devices install nothing from a repository whose metadata has expired. The root's date needs
    `sanderling release rotate-keys`.

    Example: sanderling release refresh --repository repo/ --keys keys/ --if-within 10
    """
    from sanderling_trainer.jobs.figures import pushed_figures
    from sanderling_trainer.releases.status import first_online_expiry, read_status

    opened = _open(repository, keys)
    online = _online_keys(keys)
    with pushed_figures("refresh") as figures:
        signed = opened.refresh(None if if_within is None else timedelta(days=if_within))
        expires = read_status(opened.store, online, SystemClock()).expires
        figures["root_expires_timestamp_seconds"] = expires["root"].timestamp()
        figures["online_expires_timestamp_seconds"] = first_online_expiry(expires).timestamp()
    text = (
        f"signed again: {', '.join(signed)}"
        if signed
        else f"not signed again: nothing expires within {if_within:g} days"
    )
    _finish(opened.store, online, [text], {"refreshed": signed}, as_json)


@app.command("rotate-keys")
def rotate_keys(
    repository: Repository,
    keys: Keys,
    root_keys: RootKeys,
    replace: Annotated[
        list[KeyName] | None,
        typer.Option(help="A lost or stolen key that a new one stands for; may be repeated."),
    ] = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Sign a new root, valid for a year, with two root keys; with new keys for the named ones.

    Devices follow to the new root by themselves. A key kept elsewhere is taken from
    NAME.next.signer in its folder. A call that was killed can be repeated.

    Example: sanderling release rotate-keys --repository repo/ --keys keys/ --root-keys root-keys/
    """
    from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, open_store
    from sanderling_trainer.releases.rotation import rotate_keys as run

    store = open_store(repository, JOB_TIMEOUT)
    online = _online_keys(keys)
    names = [name.value for name in replace or []]
    version = run(store, online, _root_keys(root_keys, password_file, is_new=False), names)
    replaced = f"; new: {', '.join(names)}" if names else ""
    result = {"root_version": version, "replaced": names}
    _finish(store, online, [f"root {version} is published{replaced}"], result, as_json)


@app.command()
def status(
    repository: Repository,
    keys: Annotated[
        Path | None, typer.Option(help="Folder of the online keys, to say which are here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show releases, keys, and when signatures expire; the exit status is 3 when some do within
    seven days (the root: sixty).

    Example: sanderling release status --repository repo/ --keys keys/
    """
    from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, open_store
    from sanderling_trainer.releases.status import read_status

    folder = None if keys is None else _online_keys(keys)
    found = read_status(open_store(repository, JOB_TIMEOUT), folder, SystemClock())
    lines = [
        f"release {number:<8}{fields['app']:<20}{fields['rollout']:>4} %"
        for number, fields in sorted(found.releases.items())
    ]
    lines += [
        f"{key.role:<12}{key.name:<12}{key.id[:16]}  {key.location or 'not here'}"
        for key in found.keys
    ]
    lines += [f"{role:<12}expires {_date(date)}" for role, date in found.expires.items()]
    result = {
        "releases": [found.releases[number] for number in sorted(found.releases)],
        "keys": [
            {"role": key.role, "name": key.name, "id": key.id, "location": key.location}
            for key in found.keys
        ],
    }
    finish({**result, **_dates(found)}, "\n".join(lines), as_json, is_data=True)
    _warn(found)
    if found.near:
        raise typer.Exit(3)


def _open(repository: str, keys: Path) -> ReleaseRepository:
    from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, open_store
    from sanderling_trainer.releases.repository import ReleaseRepository

    return ReleaseRepository(open_store(repository, JOB_TIMEOUT), _online_keys(keys))


def _online_keys(folder: Path) -> KeyFolder:
    from sanderling_trainer.releases.keys import KeyFolder

    return KeyFolder(folder)


def _root_keys(folder: Path, password_file: Path | None, *, is_new: bool) -> KeyFolder:
    """Return the folder of root keys, whose password is read once, when a key needs it."""
    from sanderling_trainer.releases.keys import KeyFolder

    @cache
    def password() -> str:
        found = _password(password_file, is_new=is_new)
        if is_new and len(found) < MIN_PASSWORD:
            raise typer.BadParameter(
                f"expected a password of at least {MIN_PASSWORD} characters for the root keys,"
                f" found {len(found)}"
            )
        return found

    return KeyFolder(folder, password)


def _password(file: Path | None, *, is_new: bool) -> str:
    if file is not None:
        return file.read_text().rstrip("\r\n")
    if PASSWORD_VARIABLE in os.environ:
        return os.environ[PASSWORD_VARIABLE]
    if sys.stdin.isatty():
        prompt = "Password of the root keys"
        return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=is_new, err=True))
    raise typer.BadParameter(
        "expected the root keys' password, found no terminal to ask for it; give"
        f" --root-password-file, or set {PASSWORD_VARIABLE}"
    )


def _finish(
    store: ObjectStore, keys: KeyFolder, lines: list[str], result: dict[str, Any], as_json: bool
) -> None:
    """Print a command's result, when the metadata expires, and warnings."""
    from sanderling_trainer.releases.status import first_online_expiry, read_status

    found = read_status(store, keys, SystemClock())
    first = first_online_expiry(found.expires)
    lines.append(f"signatures expire on {_date(first)}: run `sanderling release refresh` before")
    finish({**result, **_dates(found)}, "\n".join(lines), as_json)
    _warn(found)


def _warn(found: Status) -> None:
    """Warn of each role that has expired or is about to."""
    for role in found.near:
        command = "rotate-keys` with two root keys" if role == "root" else "refresh`"
        date = found.expires[role]
        verb = "expires" if date > datetime.now(UTC) else "expired"
        note(
            f"warning: the {role} metadata {verb} on {_date(date)}:"
            f" run `sanderling release {command}"
        )


def _date(date: datetime) -> str:
    return f"{date:%Y-%m-%d %H:%M} UTC"


def _dates(found: Status) -> dict[str, Any]:
    return {
        "expires": {role: date.isoformat() for role, date in found.expires.items()},
        "near_expiry": found.near,
    }
