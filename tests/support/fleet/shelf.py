"""What one device may show: a slow and simple model of releases and of local items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.support.fleet.editions import GIVEN, Edition


@dataclass(frozen=True)
class Choice:
    """What a decision could choose from: titles by id of one release with the app's changes, in
    which context."""

    release: int
    titles: dict[str, str]
    context: str | None


class Shelf:
    """`proven` releases have served, the last of them does unless a `fresh` one was installed;
    `failed` never come again, nor does what is not above `highest`. A death before its first
    decision costs a fresh release its second try. A process that was denied the folder's lock
    does not hold it: it shows what is proven, and changes nothing."""

    def __init__(self, editions: Mapping[int, Edition]) -> None:
        self.editions = editions
        self.proven, self.fresh, self.tried, self.highest = [GIVEN], 0, False, 0
        self.held = True
        self.failed: set[int] = set()
        self.added: dict[str, tuple[str, int]] = {}
        self.removed: set[str] = set()

    @property
    def release(self) -> int:
        """The release that serves now."""
        return (self.held and self.fresh) or self.proven[-1]

    def newer(self) -> list[int]:
        """Return the releases that the device may take."""
        return [
            one
            for one in self.editions
            if one > max(self.release, self.highest) and one not in self.failed
        ]

    def open(self, held: bool) -> None:
        """A process begins; the one before may have died of a fresh release."""
        self.held = held
        if held and self.fresh and self.tried:
            self.roll_back()
        self.tried = bool(self.fresh) if held else self.tried

    def close(self) -> None:
        """A process ends in good order."""
        self.tried = self.tried and not self.held

    def install(self, release: int) -> None:
        """A fresh release serves from now on."""
        self.fresh, self.tried = release, False

    def serve(self) -> None:
        """A decision was made: what serves is proven."""
        if self.held and self.fresh:
            self.proven.append(self.fresh)
            self.highest, self.fresh, self.tried = max(self.highest, self.fresh), 0, False

    def roll_back(self) -> None:
        """The release before serves again, and this one never."""
        if self.release == GIVEN:
            return
        self.failed.add(self.release)
        if not self.fresh:
            self.proven.pop()
        self.fresh, self.tried = 0, False

    def upsert(self, item: str, title: str, wall_ms: int) -> None:
        """The app adds an item, or knows one better than the release that serves."""
        self.removed.discard(item)
        self.added[item] = title, max(wall_ms, self.editions[self.release].made_ms)

    def remove(self, item: str) -> None:
        """The app wants an item never shown again."""
        self.added.pop(item, None)
        self.removed.add(item)

    def titles(self, exclude: Iterable[str] = ()) -> dict[str, str]:
        """Return what may be shown now; a release that was made after an item was added knows
        that item better."""
        edition = self.editions[self.release]
        mine = {
            item: title
            for item, (title, wall_ms) in self.added.items()
            if item not in edition.titles or wall_ms >= edition.made_ms
        }
        hidden = {*self.removed, *exclude}
        return {
            item: title for item, title in {**edition.titles, **mine}.items() if item not in hidden
        }

    def others(self) -> list[str]:
        """Return all that the app had no hand in, for who wants to show the rest alone; nothing
        where there is none."""
        titles = self.titles()
        others = [item for item in titles if item not in self.added]
        return others if len(others) < len(titles) else []

    def choice(self, exclude: Iterable[str], context: str | None) -> Choice:
        """Return what a decision made now could choose from."""
        return Choice(self.release, self.titles(exclude), context)
