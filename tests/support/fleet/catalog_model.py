"""The expected catalog of a device: its releases and the items that its app added and removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.support.fleet.releases import SHIPPED_RELEASE, FleetRelease


@dataclass(frozen=True)
class EligibleItems:
    """The items a decision could choose from, titles by id, and its context."""

    release: int
    titles: dict[str, str]
    context: str | None


class CatalogModel:
    """A reference model of release slots and catalog changes.

    The release in use is the one on `trial`, else the last of `confirmed`. A trial is confirmed by
    its first decision; a crash before that is allowed once. Releases in `failed` and those not
    above `highest_confirmed` are not installed again. A process that does not own the state folder
    uses the last confirmed release and changes nothing.
    """

    def __init__(self, releases: Mapping[int, FleetRelease]) -> None:
        self.releases = releases
        self.confirmed = [SHIPPED_RELEASE]
        self.trial = 0
        self.trial_started = False
        self.highest_confirmed = 0
        self.owns_folder = True
        self.failed: set[int] = set()
        self.added: dict[str, tuple[str, int]] = {}
        self.removed: set[str] = set()

    @property
    def release(self) -> int:
        """The release in use."""
        return (self.owns_folder and self.trial) or self.confirmed[-1]

    def newer(self) -> list[int]:
        """Return the releases that the device may install."""
        newest = max(self.release, self.highest_confirmed)
        return [
            release for release in self.releases if release > newest and release not in self.failed
        ]

    def open(self, owns_folder: bool) -> None:
        """Note a start; the previous process may have crashed with a release on trial."""
        self.owns_folder = owns_folder
        if owns_folder and self.trial and self.trial_started:
            self.roll_back()
        self.trial_started = bool(self.trial) if owns_folder else self.trial_started

    def close(self) -> None:
        """Note an orderly exit."""
        self.trial_started = self.trial_started and not self.owns_folder

    def install(self, release: int) -> None:
        """Note that a release is in use, on trial."""
        self.trial = release
        self.trial_started = False

    def serve(self) -> None:
        """Note a decision: the release on trial is confirmed."""
        if self.owns_folder and self.trial:
            self.confirmed.append(self.trial)
            self.highest_confirmed = max(self.highest_confirmed, self.trial)
            self._end_trial()

    def roll_back(self) -> None:
        """Note a rollback: this release is not used again."""
        if self.release == SHIPPED_RELEASE:
            return
        self.failed.add(self.release)
        if not self.trial:
            self.confirmed.pop()
        self._end_trial()

    def _end_trial(self) -> None:
        self.trial = 0
        self.trial_started = False

    def upsert(self, item: str, title: str, wall_ms: int) -> None:
        """Note an added or replaced item."""
        self.removed.discard(item)
        self.added[item] = title, max(wall_ms, self.releases[self.release].created_ms)

    def remove(self, item: str) -> None:
        """Note a removed item."""
        self.added.pop(item, None)
        self.removed.add(item)

    def titles(self, exclude: Iterable[str] = ()) -> dict[str, str]:
        """Return what may be shown; a release newer than an added item overrides it."""
        release = self.releases[self.release]
        own = {
            item: title
            for item, (title, wall_ms) in self.added.items()
            if item not in release.titles or wall_ms >= release.created_ms
        }
        hidden = {*self.removed, *exclude}
        return {
            item: title for item, title in {**release.titles, **own}.items() if item not in hidden
        }

    def unchanged_items(self) -> list[str]:
        """Return the items that the app did not change; empty where it changed none."""
        titles = self.titles()
        unchanged = [item for item in titles if item not in self.added]
        return unchanged if len(unchanged) < len(titles) else []

    def eligible_items(self, exclude: Iterable[str], context: str | None) -> EligibleItems:
        """Return what a decision could choose from now."""
        return EligibleItems(self.release, self.titles(exclude), context)
