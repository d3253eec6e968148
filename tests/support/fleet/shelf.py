"""The reference model of a device's releases and of the items that its app added and removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.support.fleet.editions import GIVEN, Edition


@dataclass(frozen=True)
class Choice:
    """The items a decision could choose from, titles by id, and its context."""

    release: int
    titles: dict[str, str]
    context: str | None


class Shelf:
    """`proven` releases have served, the last of them does unless a `fresh` one was installed;
    `failed` never come again, nor does what is not above `highest`. A death before its first
    decision costs a fresh release its second try. A process that was denied the folder's lock does
    not hold it: it shows what is proven, and changes nothing.
    """

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
        """Note a start; the previous process may have crashed with a fresh release."""
        self.held = held
        if held and self.fresh and self.tried:
            self.roll_back()
        self.tried = bool(self.fresh) if held else self.tried

    def close(self) -> None:
        """Note an orderly exit."""
        self.tried = self.tried and not self.held

    def install(self, release: int) -> None:
        """Note that a fresh release serves."""
        self.fresh, self.tried = release, False

    def serve(self) -> None:
        """Note a decision: the release is confirmed."""
        if self.held and self.fresh:
            self.proven.append(self.fresh)
            self.highest, self.fresh, self.tried = max(self.highest, self.fresh), 0, False

    def roll_back(self) -> None:
        """Note a rollback: this release never serves again."""
        if self.release == GIVEN:
            return
        self.failed.add(self.release)
        if not self.fresh:
            self.proven.pop()
        self.fresh, self.tried = 0, False

    def upsert(self, item: str, title: str, wall_ms: int) -> None:
        """Note an added or replaced item."""
        self.removed.discard(item)
        self.added[item] = title, max(wall_ms, self.editions[self.release].made_ms)

    def remove(self, item: str) -> None:
        """Note a removed item."""
        self.added.pop(item, None)
        self.removed.add(item)

    def titles(self, exclude: Iterable[str] = ()) -> dict[str, str]:
        """Return what may be shown; a release newer than an added item overrides it."""
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
        """Return the items that the app did not change; empty where it changed none."""
        titles = self.titles()
        others = [item for item in titles if item not in self.added]
        return others if len(others) < len(titles) else []

    def choice(self, exclude: Iterable[str], context: str | None) -> Choice:
        """Return what a decision could choose from now."""
        return Choice(self.release, self.titles(exclude), context)
