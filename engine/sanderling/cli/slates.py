"""Greedy slates of the users of a log, by a bundle or, with the trainer installed, a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sanderling.bundle.reader import Bundle
from sanderling.cli import tables
from sanderling.engine import Engine
from sanderling.errors import TableError
from sanderling.tables.event_log import EventLog

History = Sequence[tuple[str, str]]
"""The items of a user's events with the kinds of event, oldest first."""

PRINTED_USERS = 5
"""Users whose slates are printed where neither a file nor users are named."""

LATELY = 3
"""Items of a printed history."""

TITLE = 60
"""Characters of a printed title."""


class Ranker(Protocol):
    """Ranks the items for a user's history."""

    release: int

    def slate(
        self, user: str, history: History, k: int, exclude: Collection[str]
    ) -> list[tuple[str, float]]:
        """Return the k best items with their scores, best first, without some."""

    def title(self, item: str) -> str:
        """Return an item's title, its id where it has none."""


class BundleRanker:
    """Ranks as a device does; with `explains` it keeps a sentence for each item of a slate."""

    def __init__(self, folder: Path, engine: Engine, explains: bool) -> None:
        self.release = engine.release
        self.sentences: dict[tuple[str, str], str] = {}
        self._engine = engine
        self._bundle = Bundle.open(folder)
        self._explains = explains

    def slate(
        self, user: str, history: History, k: int, exclude: Collection[str]
    ) -> list[tuple[str, float]]:
        """Return the k best items with their scores, best first, without some."""
        for item, kind in history:
            self._engine.observe(user, item, kind)
        slate = self._engine.recommend(user, k, exclude=exclude, greedy=True)
        if self._explains:
            self.sentences |= {(user, item.id): item.why().sentence for item in slate}
        return [(item.id, item.score) for item in slate]

    def title(self, item: str) -> str:
        """Return an item's title, its id where it has none."""
        row = self._bundle.find(item)
        record = {} if row is None else self._bundle.record(row)
        return str(record.get("title") or record.get("text") or item)


@contextmanager
def open_ranker(
    bundle: Path | None, checkpoint: Path | None, explains: bool = False
) -> Iterator[Ranker]:
    """Open the one of the two that is given; a bundle explains its slates if asked to.

    Raises `TableError` where the trainer, which reads checkpoints, is not installed.
    """
    if bundle is not None:
        with Engine.open(bundle) as engine:
            yield BundleRanker(bundle, engine, explains)
        return

    lab = tables.installed_lab()
    if lab is None:
        raise TableError(
            f"{checkpoint}: a checkpoint needs the lab: pip install sanderling-trainer"
        )
    yield lab.open_checkpoint(checkpoint)


def histories_of(log: EventLog, users: Collection[str] | None) -> dict[str, History]:
    """Return the histories of some users of a log, of all by default.

    Raises `ValueError` for a user that the log lacks.
    """
    wanted = None if users is None else set(users)
    histories: dict[str, list[tuple[str, str]]] = {}
    for user, item, kind in zip(log.users, log.items, log.kinds, strict=True):
        if wanted is None or user in wanted:
            histories.setdefault(user, []).append((item, kind))
    if users is None:
        return dict(histories)
    missing = [user for user in users if user not in histories]
    if missing:
        raise ValueError(f"--user: expected a user of the log, found {missing[0]!r:.80}")
    return {user: histories[user] for user in users}


def latest_users(log: EventLog) -> list[str]:
    """Return the users of the latest events, at most so many as are printed."""
    return list(dict.fromkeys(reversed(log.users)))[:PRINTED_USERS]


def ranked(
    ranker: Ranker,
    histories: Mapping[str, History],
    users: Iterable[str],
    k: int,
    keep_seen: bool,
) -> list[dict[str, Any]]:
    """Return the slates of some users as rows of a table of slates."""
    rows: list[dict[str, Any]] = []
    for user in users:
        history = histories[user]
        seen = () if keep_seen else [item for item, _ in history]
        rows += [
            {"user_id": user, "rank": rank, "item_id": item, "score": score}
            for rank, (item, score) in enumerate(ranker.slate(user, history, k, seen), 1)
        ]
    return rows


def described(ranker: Ranker, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with titles, and with `why` where the ranker explains."""
    sentences = ranker.sentences if isinstance(ranker, BundleRanker) else {}
    described_rows = []
    for row in rows:
        why = sentences.get((row["user_id"], row["item_id"]))
        reason = {} if why is None else {"why": why}
        described_rows.append({**row, "title": ranker.title(row["item_id"]), **reason})
    return described_rows


def as_text(
    ranker: Ranker, histories: Mapping[str, History], rows: Sequence[Mapping[str, Any]]
) -> str:
    """Return slates with titles for the terminal: a block for each user."""
    blocks = []
    for user, history in histories.items():
        lately = " · ".join(ranker.title(item) for item, _ in reversed(history[-LATELY:]))
        lines = [f"{user}: {len(history)} events, the latest: {lately}"]
        for row in rows:
            if row["user_id"] == user:
                lines.append(f"{row['rank']:>4}  {_cut(row['title']):<{TITLE}}  {row['item_id']}")
                lines += [f"{'':>6}{row['why']}"] if "why" in row else []
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _cut(title: str) -> str:
    line = " ".join(title.split())
    return line if len(line) <= TITLE else f"{line[: TITLE - 1]}…"
