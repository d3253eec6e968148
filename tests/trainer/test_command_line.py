"""The whole command line with every distribution installed: examples, options, errors, releases."""

from __future__ import annotations

import csv
import re
import shlex
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from tuf.api.metadata import Metadata

from sanderling.cli.app import make_app
from sanderling_quantize import cli as quantize_cli
from sanderling_quantize.encoders.int8_search import BITS
from sanderling_quantize.encoders.student_config import TIERS
from sanderling_trainer.cli import options
from sanderling_trainer.data.tables import write_slates
from sanderling_trainer.release_repository import ONLINE_ROLES, create_repository
from tests.support.bundles import write_bundle
from tests.support.shell import Shell

pytestmark = pytest.mark.lab

RELEASES = ("--repository", "repository", "--keys", "keys")
SEEDED = {"demo", "evaluate", "quantize", "retrain", "train"}
LOG = [("anna", "item-1", 1), ("anna", "item-2", 2), ("ben", "item-3", 3)]

# Examples that end in seconds, in an order in which each finds what it needs.
CHEAP = (
    "doctor", "events", "recommend", "evaluate", "report", "tokens", "compact", "installs rotate",
    "release keys", "release publish", "release rollout", "release refresh",
)  # fmt: skip


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every command that does something with its name, such as `release publish`."""
    for name, subcommand in getattr(command, "commands", {}).items():
        yield from leaves(subcommand, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


COMMANDS = dict(leaves(typer.main.get_command(make_app())))


def example(name: str) -> list[str]:
    """Return the arguments of the one example in a command's help."""
    [line] = re.findall(
        r"^ *Example: sanderling (.*)$", COMMANDS[name].callback.__doc__, re.MULTILINE
    )
    return shlex.split(line)


def option_names(name: str) -> set[str]:
    return {option for parameter in COMMANDS[name].params for option in parameter.opts}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with what the examples name: two bundles, logs, slates, a summary."""
    monkeypatch.chdir(tmp_path)
    write_bundle(Path("bundle"), release=1)
    write_bundle(Path("releases/2"), release=2, seed=1)
    write_table("log.csv", ("user_id", "item_id", "timestamp"), LOG)
    write_table(
        "items.csv", ("item_id", "text"), [(f"item-{row}", f"thing {row}") for row in range(9)]
    )
    for name in ("log.parquet", "later.parquet"):
        rows = [dict(zip(("user_id", "item_id", "timestamp"), row, strict=True)) for row in LOG]
        write_parquet(name, rows)
    write_slates(
        "slates.parquet", [{"user_id": "anna", "rank": 1, "item_id": "item-1", "score": 0.5}]
    )
    Path("demo").mkdir()
    Path("demo/summary.json").write_text("{}")
    return tmp_path


def write_table(name: str, head: tuple[str, ...], rows: list[tuple]) -> None:
    with Path(name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def write_parquet(name: str, rows: list[dict]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), name)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_example_has_valid_options(name: str) -> None:
    """Each command's help has one example, of that command, with options that exist and values that
    are allowed.
    """
    words = name.split()
    arguments = example(name)
    assert arguments[: len(words)] == words
    COMMANDS[name].make_context(name, arguments[len(words) :])


def test_the_cheap_examples_work_as_written(shop: Path, shell: Shell) -> None:
    """Examples that need neither training nor a server run in a folder with the files that they
    name.
    """
    for name in CHEAP:
        assert shell.json(*example(name)), name


def test_json_everywhere_and_seeds_where_they_matter() -> None:
    """Every command has --json; --seed is where something random is done."""
    assert [name for name in COMMANDS if "--json" not in option_names(name)] == []
    assert {name for name in COMMANDS if "--seed" in option_names(name)} == SEEDED


def test_the_choices_are_those_of_the_library() -> None:
    """The encoders and processors that the command line offers are the ones that can be built."""
    assert (
        [choice.value for choice in quantize_cli.Encoder]
        == [choice.value for choice in options.Encoder]
        == list(TIERS)
    )
    assert [choice.value for choice in quantize_cli.Target] == list(BITS)


# Commands, each with the message that it ends in below it.
MISTAKES = """
train --items items.csv --interactions log.csv --out c --language-model bundle
    expected a Hugging Face id
train --items items.csv --interactions log.csv --out log.csv/c
    log.csv/c: expected a folder above it
train --items none.csv --interactions log.csv --out c
    none.csv: expected a file, found nothing
quantize bundle --out b
    bundle: expected a policy checkpoint, found no encoder
quantize damaged --out b
    damaged: expected a policy checkpoint, found files that cannot be read
quantize damaged --out b --corpus latin1.txt
    latin1.txt: line 2: expected UTF-8 text, found the byte 0xe9
quantize damaged --out b --corpus bundle
    bundle: Is a directory
gate bundle --checkpoint damaged
    damaged: expected a policy checkpoint, found files that cannot be read
retrain --events e --checkpoint damaged --out n
    damaged: expected a policy checkpoint
retrain --events e --checkpoint damaged --out n --bundle bundle
    bundle: expected no such folder yet
retrain --events e --checkpoint damaged --out n --encoder-of keys
    expected a bundle
evaluate --slates log.csv --interactions log.csv
    log.csv: expected the columns user_id, rank
report --summary log.csv --out r.html
    log.csv: expected the summary.json of `sanderling demo`, found no JSON
report --summary list.json --out r.html
    list.json: expected the summary.json of `sanderling demo`, found li
report --summary other.json --out r.html
    other.json: expected the summary.json of `sanderling demo`, found o
collect --store ftp://host/x
    ftp://host/x: expected a folder, or the URL of an object store
compact --store s3://
    s3://: expected a folder, or the URL of an object store
erase --store events --install 12
    expected an install's id of 32 hex digits
tokens revoke --store events --name anna
    expected the name of a token
release publish --bundle bundle --repository none --keys keys
    none: expected a release repository, found no
release rollout --release 2 --percent 5 --repository none --keys keys
    none: expected a release repository
release refresh --repository none --keys keys
    none/metadata/1.root.json: expected the metadata
""".strip().splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"), list(zip(MISTAKES[::2], MISTAKES[1::2], strict=True))
)
def test_a_mistake_ends_in_one_line(shop: Path, shell: Shell, arguments: str, message: str) -> None:
    """A wrong file, folder, URL or id ends in one line that names it, with exit status 1."""
    Path("damaged/encoder").mkdir(parents=True)
    for name in ("policy.safetensors", "config.json", "items.parquet"):
        Path("damaged", name).write_bytes(b"not that")
    Path("latin1.txt").write_bytes("lamp\ncaf\u00e9 chair\n".encode("latin-1"))
    Path("list.json").write_text("[]")
    Path("other.json").write_text('{"nights": [{"difference": 3}]}')
    status, _, err = shell.run(*arguments.split())
    assert status == 1
    last = err.splitlines()[-1]
    assert last.startswith("sanderling: ")
    assert message.strip() in last
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [
    "quantize c --out b --encoder tiny",
    "quantize c --out b --target avx1024",
    "quantize c --out b --seed -1",
    "gate bundle --checkpoint c --encoder huge",
    "retrain --events e --checkpoint c --out n --encoder tiny",
    "evaluate --slates slates.parquet --interactions log.csv --seed -1",
    "train --items items.csv --interactions log.csv --out c --seed -1",
    "train --items items.csv --interactions log.csv --out c --seed 99999999999",
    "train --items items.csv --interactions log.csv --out c --visit-hours inf",
    "train --items items.csv --interactions log.csv --out c --holdout nan",
    "demo --collector-down 5m",
    "demo --items items.csv",
    "tokens issue --store events",
    "tokens begin --store events",
    "collect --store events --port 99999",
    "release rollout --release 2 --percent 101 --repository r --keys k",
    "release refresh --repository r --keys k --if-within nan",
    "installs rotate --store events --at-most nan",
    "renew --store events",
])  # fmt: skip
def test_wrong_usage_prints_the_usage(shop: Path, shell: Shell, arguments: str) -> None:
    """An impossible option value, or an unknown command, prints the usage; exit status 2."""
    status, _, err = shell.run(*arguments.split())
    assert status == 2, err
    assert "Usage: sanderling" in err


def test_a_port_in_use_is_named(shop: Path, shell: Shell) -> None:
    """`collect` on a port that is taken ends in one line with the port, and exit status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = shell.run("collect", "--store", "events", "--port", port)
    assert status == 1
    assert err.startswith(
        f"sanderling: 127.0.0.1 port {port}: expected an address to listen on: Address already in"
    )


def rollout_of(release: int) -> Any:
    """Return the percentage that the newest targets state for a release."""
    newest = max(
        Path("repository/metadata").glob("*.targets.json"),
        key=lambda path: int(path.name.split(".")[0]),
    )
    targets = Metadata.from_file(str(newest)).signed.targets  # type: ignore[attr-defined]
    return targets[f"releases/{release}/manifest.json"].custom["rollout"]


def test_a_release_is_published_and_rolled_out(shop: Path, shell: Shell) -> None:
    """`publish` and `rollout` set the percentage of installs that get a release; 0 withdraws it."""
    made = shell.json("release", "keys", *RELEASES)
    assert made["created"]
    assert Path(made["root"]).read_bytes() == Path("repository/metadata/1.root.json").read_bytes()
    published = shell.json(
        "release", "publish", "--bundle", "releases/2", *RELEASES, "--percent", 10
    )
    assert (published["release"], published["percent"], rollout_of(2)) == (2, 10, 10)
    for percent in (50, 0):
        assert (
            shell.json("release", "rollout", "--release", 2, "--percent", percent, *RELEASES)[
                "percent"
            ]
            == percent
        )
        assert rollout_of(2) == percent
    status, _, err = shell.run("release", "publish", "--bundle", "bundle", *RELEASES)
    assert (status, "expected a number above 2" in err) == (1, True)


def test_keys_are_created_once_and_then_shown(shop: Path, shell: Shell) -> None:
    """`release keys` makes six keys; later it shows which of them the folder holds, and changes
    none.
    """
    made = shell.json("release", "keys", *RELEASES)
    assert [key["role"] for key in made["keys"]] == ["root"] * 3 + list(ONLINE_ROLES)
    assert all(key["file"] for key in made["keys"])
    before = {path: path.read_bytes() for path in Path("keys").iterdir()}
    for name in ("root-1", "root-2", "root-3"):
        Path("keys", f"{name}.pem").unlink()
    shown = shell.json("release", "keys", *RELEASES)
    assert not shown["created"]
    assert [key["id"] for key in shown["keys"]] == [key["id"] for key in made["keys"]]
    assert [key["file"] is None for key in shown["keys"]] == [True] * 3 + [False] * 3
    assert {path: path.read_bytes() for path in Path("keys").iterdir()}.items() <= before.items()


def test_refresh_extends_and_reports_the_dates(shop: Path, shell: Shell) -> None:
    """Online metadata gets new dates, the root keeps its own; with --if-within only when one is
    that near.
    """
    Path("repository").mkdir()
    create_repository(Path("repository"), Path("keys"), expires_days=5)
    waits = shell.json("release", "refresh", *RELEASES, "--if-within", 4)
    assert (waits["refreshed"], waits["expires"]) == (False, waits["before"])
    done = shell.json("release", "refresh", *RELEASES, "--if-within", 6)
    assert (done["refreshed"], done["before"]) == (True, waits["before"])
    gained = {
        role: (date(done["expires"][role]) - date(done["before"][role])).days
        for role in done["before"]
    }
    assert gained == {"root": 0, "targets": 25, "snapshot": 25, "timestamp": 25}
    _, out, err = shell.run("release", "refresh", *RELEASES)
    assert f"was {done['expires']['timestamp'][:10]}" in out
    assert "warning" not in err


def date(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("days", "words"), [(5, "the timestamp metadata expires on"), (-1, "metadata expired on")]
)
def test_a_near_expiry_is_a_warning(shop: Path, shell: Shell, days: int, words: str) -> None:
    """Metadata that expires within a week, or has expired, is named on stderr with the command that
    helps.
    """
    create_repository(Path("repository"), Path("keys"), expires_days=days)
    status, _, err = shell.run("release", "keys", *RELEASES)
    assert status == 0
    assert words in err
    assert "sanderling release refresh" in err


def test_damaged_metadata_is_named(shop: Path, shell: Shell) -> None:
    """A file of metadata that is no metadata, or another role's, ends in one line with its name."""
    create_repository(Path("repository"), Path("keys"))
    timestamp = Path("repository/metadata/timestamp.json")
    timestamp.write_bytes(Path("repository/metadata/1.snapshot.json").read_bytes())
    _, _, err = shell.run("release", "refresh", *RELEASES)
    assert "timestamp.json: expected metadata of the role timestamp, found snapshot" in err
    timestamp.write_bytes(b"{")
    _, _, err = shell.run("release", "refresh", *RELEASES)
    assert "timestamp.json: expected TUF metadata, found a damaged file" in err
