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
from sanderling_trainer.releases.keys import ONLINE_ROLES, ROOT_KEYS
from tests.support.bundles import write_bundle
from tests.support.releases import PASSWORD, ReleaseServer, expiring, make_repository
from tests.support.shell import Shell

pytestmark = pytest.mark.lab

RELEASES = ("--repository", "repository", "--keys", "keys")
SEEDED = {"demo", "evaluate", "quantize", "retrain", "train"}
LOG = [("anna", "item-1", 1), ("anna", "item-2", 2), ("ben", "item-3", 3)]

# Examples that end in seconds, in an order in which each finds what it needs.
CHEAP = (
    "doctor", "events", "recommend", "evaluate", "report", "tokens", "compact", "installs rotate",
    "release init", "release publish", "release rollout", "release withdraw", "release refresh",
    "release rotate-keys", "release status",
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
    monkeypatch.setenv("SANDERLING_ROOT_PASSWORD", PASSWORD)
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
    none.csv: expected a file or a folder, found nothing
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
    bundle: expected nothing there yet
retrain --events e --checkpoint damaged --out n --encoder-of keys
    expected a bundle
retrain --events e --checkpoint damaged --out n --encoder-of rotten
    items.safetensors
quantize damaged --out bundle
    bundle: expected nothing there yet
quantize damaged --out b --encoder-of keys
    expected a bundle
quantize damaged --out b --previous rotten
    items.safetensors
train --items items.csv --interactions log.csv --out c --parent keys
    keys: expected a policy checkpoint, found no config.json
train --items items.csv --interactions log.csv --out c --parent damaged
    damaged: expected a policy checkpoint, found files that cannot be read
train --items items.csv --interactions log.csv --out trained --parent trained
    trained: expected another folder than the parent's
train --items items.csv --interactions log.csv --out c --parent trained --app radio
    trained: expected a checkpoint of the app radio, found one of shop
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
    none/metadata/timestamp.json: expected the metadata of a release repository
release publish --bundle bundle --repository s3:/bucket/repository --keys keys
    s3:/bucket/repository: expected a folder, or the URL of an object store such as s3://
release init --repository ftp://host/x --keys keys --root-keys root-keys
    ftp://host/x: expected a folder, or the URL of an object store
release init --repository r --keys keys --root-keys keys
    keys: expected another folder for the root keys
release rollout --release 2 --percent 5 --repository none --keys keys
    none/metadata/timestamp.json: expected the metadata of a release repository
release withdraw --release 2 --repository none --keys keys
    none/metadata/timestamp.json: expected the metadata of a release repository
release refresh --repository none --keys keys
    none/metadata/timestamp.json: expected the metadata
release status --repository none
    none/metadata/timestamp.json: expected the metadata
release rotate-keys --repository none --keys keys --root-keys root-keys
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
    Path("trained").mkdir()
    Path("trained/config.json").write_text('{"app": "shop", "release": 4}')
    write_bundle(Path("rotten"), release=1)
    Path("rotten/items.safetensors").write_bytes(b"rotten")
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
    "release rollout --release 2 --percent 0 --repository r --keys k",
    "release rotate-keys --repository r --keys k --root-keys o --replace root-4",
    "release keys --repository r --keys k",
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


def test_collect_says_where_it_serves(
    shop: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line on stderr names address and store before the first request."""
    monkeypatch.setattr("sanderling_trainer.collector.server.serve", lambda *arguments: None)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    collect = ("collect", "--store", "events", "--port", port)
    _, _, err = shell.run(*collect)
    assert err == (f"serving http://127.0.0.1:{port}, segments go to events; stop with Ctrl-C\n")


def rollout_of(release: int) -> Any:
    """Return the percentage that the newest targets state for a release."""
    newest = max(
        Path("repository/metadata").glob("*.targets.json"),
        key=lambda path: int(path.name.split(".")[0]),
    )
    targets = Metadata.from_file(str(newest)).signed.targets  # type: ignore[attr-defined]
    return targets[f"releases/{release}/manifest.json"].custom["rollout"]


INIT = ("release", "init", *RELEASES, "--root-keys", "root-keys")


def files_below(*folders: str) -> dict[Path, bytes]:
    """Return the contents of all files in these folders."""
    paths = [path for folder in folders for path in Path(folder).rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in paths}


def test_a_release_is_published_and_rolled_out(shop: Path, shell: Shell) -> None:
    """`publish`, `rollout` and `withdraw` set the percentage of installs that get a release; the
    same bundle again is success, and changes nothing.
    """
    made = shell.json(*INIT)
    assert Path(made["root"]).read_bytes() == Path("repository/metadata/1.root.json").read_bytes()
    publish = ("release", "publish", "--bundle", "releases/2", *RELEASES, "--percent", 10)
    published = shell.json(*publish)
    assert (published["release"], published["percent"], published["new"]) == (2, 10, True)
    assert rollout_of(2) == 10
    shell.json("release", "rollout", "--release", 2, "--percent", 50, *RELEASES)
    assert rollout_of(2) == 50
    again = shell.json(*publish)
    assert (again["percent"], again["new"], rollout_of(2)) == (50, False, 50)
    _, out, _ = shell.run(*publish)
    assert out.startswith("release 2 is already published to 50 % of the installs\nnothing was")
    shell.json("release", "withdraw", "--release", 2, *RELEASES)
    assert rollout_of(2) == 0
    status, _, err = shell.run("release", "publish", "--bundle", "bundle", *RELEASES)
    assert (status, "expected a number above 2" in err) == (1, True)


def test_a_repository_is_made_once_and_then_shown(shop: Path, shell: Shell) -> None:
    """`init` makes three root keys and three online keys, and repeated changes nothing; `status`
    shows which keys sign, and which of them are here.
    """
    shell.json(*INIT)
    before = files_below("repository", "keys", "root-keys")
    assert {path.stem for path in before if path.suffix == ".pem"} == {*ROOT_KEYS, *ONLINE_ROLES}
    shell.json(*INIT)
    assert files_below("repository", "keys", "root-keys") == before
    Path("keys/targets.pem").unlink()
    shown = shell.json("release", "status", *RELEASES)
    assert [key["name"] for key in shown["keys"]] == [*ROOT_KEYS, *ONLINE_ROLES]
    locations = [key["location"] for key in shown["keys"]]
    assert locations == [None] * 4 + ["keys/snapshot.pem", "keys/timestamp.pem"]


def test_the_password_comes_from_a_file_or_the_environment(
    shop: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file given goes before the environment; a short password is refused, and so is none where
    no terminal can be asked.
    """
    monkeypatch.setenv("SANDERLING_ROOT_PASSWORD", "short")
    status, _, err = shell.run(*INIT)
    assert (status, "expected a password of at least 12 characters" in err) == (2, True)
    monkeypatch.delenv("SANDERLING_ROOT_PASSWORD")
    status, _, err = shell.run(*INIT)
    assert (status, "give --root-password-file, or set" in " ".join(err.split())) == (2, True)
    Path("password").write_text(f"{PASSWORD}\n")
    shell.json(*INIT, "--root-password-file", "password")
    monkeypatch.setenv("SANDERLING_ROOT_PASSWORD", PASSWORD)
    rotate = ("release", "rotate-keys", *RELEASES, "--root-keys", "root-keys")
    done = shell.json(*rotate, "--replace", "timestamp", "--replace", "root-3")
    assert (done["root_version"], done["replaced"]) == (2, ["timestamp", "root-3"])


def test_refresh_extends_and_reports_the_dates(shop: Path, shell: Shell) -> None:
    """Online metadata gets new dates, the root keeps its own; with --if-within only what is that
    near.
    """
    make_repository(Path(), lifetimes=expiring(5))
    before = shell.json("release", "refresh", *RELEASES, "--if-within", 4)
    assert before["refreshed"] == []
    done = shell.json("release", "refresh", *RELEASES, "--if-within", 6)
    assert done["refreshed"] == list(ONLINE_ROLES)
    gained = {
        role: (date(done["expires"][role]) - date(before["expires"][role])).days
        for role in done["expires"]
    }
    assert gained == {"root": 0, "targets": 85, "snapshot": 85, "timestamp": 9}
    _, _, err = shell.run("release", "refresh", *RELEASES)
    assert "warning" not in err


def date(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("days", "words"), [(5, "the timestamp metadata expires on"), (-1, "metadata expired on")]
)
def test_a_near_expiry_is_a_warning(shop: Path, shell: Shell, days: int, words: str) -> None:
    """Metadata that expires within a week, or has expired, is named on stderr with the command that
    helps; the exit status of `status` is 3 then.
    """
    make_repository(Path(), lifetimes=expiring(days))
    status, _, err = shell.run("release", "status", *RELEASES)
    assert status == 3
    assert words in err
    assert "sanderling release refresh" in err


def test_expired_signatures_are_renewed_by_a_command(shop: Path, shell: Shell) -> None:
    """A device refuses expired metadata; after `release refresh` it installs the release."""
    make_repository(Path(), lifetimes=expiring(-1))
    server = ReleaseServer(Path("repository").absolute())
    update = ("update", "--bundle", "bundle", "--state", "state", "--releases", server.url,
              "--root", "repository/root.json")  # fmt: skip
    try:
        status, _, err = shell.run(*update)
        assert (status, "stale: the repository's metadata has expired" in err) == (1, True)
        shell.json("release", "refresh", *RELEASES)
        shell.json("release", "publish", "--bundle", "releases/2", *RELEASES)
        assert shell.json(*update)["active"] == 2
    finally:
        server.stop()


def test_damaged_metadata_is_named(shop: Path, shell: Shell) -> None:
    """A file of metadata that is no metadata, or another role's, ends in one line with its name."""
    make_repository(Path())
    timestamp = Path("repository/metadata/timestamp.json")
    timestamp.write_bytes(Path("repository/metadata/1.snapshot.json").read_bytes())
    _, _, err = shell.run("release", "refresh", *RELEASES)
    assert "timestamp.json: expected metadata of the role timestamp, found snapshot" in err
    timestamp.write_bytes(b"{")
    _, _, err = shell.run("release", "refresh", *RELEASES)
    assert "timestamp.json: expected TUF metadata, found a damaged file" in err
