"""`sanderling release`: the signed repository that devices fetch bundles from.

Heavy libraries are imported when a command runs, not when it is listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from sanderling.cli.options import Json, finite
from sanderling.cli.output import finish, note
from sanderling_trainer.cli import canary
from sanderling_trainer.cli.options import Keys, Repository

# Warn so many days before a role expires: a root needs its owners, who keep its keys off line.
WARN_DAYS = {"root": 90, "targets": 7, "snapshot": 7, "timestamp": 7}

Percent = Annotated[
    int, typer.Option(min=0, max=100, help="Percentage of the installs that get the release.")
]

app = typer.Typer(
    no_args_is_help=True,
    help=(
        "Publish signed releases, and keep their signatures valid.\n\n"
        "Example: sanderling release refresh --repository repo/ --keys keys/"
    ),
)

app.command()(canary.canary)
app.command()(canary.again)


@app.command()
def keys(repository: Repository, keys: Keys, as_json: Json = False) -> None:
    """Show which keys sign releases and when the metadata expires; make keys and an empty
    repository if there is none.

    Two of the three root keys replace a lost or stolen key: keep them off line. The app ships with
    root.json.

    Example: sanderling release keys --repository repo/ --keys keys/
    """
    from sanderling_trainer import release_repository as releases

    created = not (repository / "metadata").exists()
    root = repository / "root.json"
    if created:
        root.parent.mkdir(parents=True, exist_ok=True)
        root.write_bytes(releases.create_repository(repository, keys))

    found = releases.public_keys(repository, keys)
    dates = releases.expiry_dates(repository)
    lines = [f"{key.role:<12}{key.id[:16]}  {key.file or 'not in this folder'}" for key in found]
    lines += [f"{role:<12}expires {_date(date)}" for role, date in dates.items()]
    if created:
        lines.append(f"made a repository; ship {root} with the app")

    result = {
        "created": created,
        "root": str(root),
        "keys": [
            {"role": key.role, "id": key.id, "file": key.file and str(key.file)} for key in found
        ],
        "expires": _dates(dates),
    }
    finish(result, "\n".join(lines), as_json)
    _warn(dates)


@app.command()
def publish(
    bundle: Annotated[Path, typer.Option(help="Folder of the finished bundle.")],
    repository: Repository,
    keys: Keys,
    percent: Percent = 100,
    as_json: Json = False,
) -> None:
    """Sign a bundle and publish it as the newest release; any web server can serve the repository.

    Example: sanderling release publish --bundle releases/2 --repository repo/ --keys keys/
    """
    from sanderling_trainer import release_repository as releases

    number = releases.publish(bundle, repository, keys, rollout=percent)
    dates = releases.expiry_dates(repository)
    result = {"release": number, "percent": percent, "expires": _dates(dates)}
    text = f"release {number} is published to {percent} % of the installs; {_refresh_by(dates)}"
    finish(result, text, as_json)
    _warn(dates)


@app.command()
def rollout(
    release: Annotated[int, typer.Option(min=1, help="Number of a published release.")],
    percent: Percent,
    repository: Repository,
    keys: Keys,
    as_json: Json = False,
) -> None:
    """Change the percentage of installs that get a published release; 0 withdraws it. Installs that
    have it keep it.

    Example: sanderling release rollout --release 2 --percent 50 --repository repo/ --keys keys/
    """
    from sanderling_trainer import release_repository as releases

    releases.set_rollout(release, percent, repository, keys)
    dates = releases.expiry_dates(repository)
    result = {"release": release, "percent": percent, "expires": _dates(dates)}
    finish(
        result,
        f"release {release} goes to {percent} % of the installs; {_refresh_by(dates)}",
        as_json,
    )
    _warn(dates)


@app.command()
def refresh(
    repository: Repository,
    keys: Keys,
    if_within: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            callback=lambda value: value and finite(value),
            help="Only if it expires within N days.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign the metadata again so that it does not expire after 30 days; run it every few days.

    Devices install nothing from a repository whose metadata has expired. The root's own date is not
    changed.

    Example: sanderling release refresh --repository repo/ --keys keys/ --if-within 14
    """
    from sanderling_trainer import release_repository as releases

    before = releases.expiry_dates(repository)
    due = if_within is None or _first(before) <= datetime.now(UTC) + timedelta(days=if_within)
    if due:
        releases.refresh(repository, keys)

    after = releases.expiry_dates(repository)
    lines = [
        f"{role:<12}expires {_date(after[role])}, was {_date(before[role])}" for role in before
    ]
    lines.append(
        "signed again" if due else f"not signed again: nothing expires within {if_within:g} days"
    )
    finish(
        {"refreshed": due, "before": _dates(before), "expires": _dates(after)},
        "\n".join(lines),
        as_json,
    )
    _warn(after)


def _first(dates: Mapping[str, datetime]) -> datetime:
    """Return when the first of the online roles expires."""
    return min(date for role, date in dates.items() if role != "root")


def _refresh_by(dates: Mapping[str, datetime]) -> str:
    return (
        f"its metadata expires on {_date(_first(dates))}:"
        " publish or `sanderling release refresh` before"
    )


def _warn(dates: Mapping[str, datetime]) -> None:
    """Warn of each role that has expired or is about to."""
    now = datetime.now(UTC)
    for role, date in dates.items():
        if date <= now + timedelta(days=WARN_DAYS[role]):
            remedy = (
                "sign a new root with two root keys"
                if role == "root"
                else "run `sanderling release refresh`"
            )
            verb = "expires" if date > now else "expired"
            note(f"warning: the {role} metadata {verb} on {_date(date)}: {remedy}")


def _date(date: datetime) -> str:
    return f"{date:%Y-%m-%d %H:%M} UTC"


def _dates(dates: Mapping[str, datetime]) -> dict[str, Any]:
    return {role: date.isoformat() for role, date in dates.items()}
