"""Publishing in a repository: bundles as signed targets, and to how many installs they go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from tuf.api.metadata import TargetFile, Targets

from sanderling.bundle.manifest import MANIFEST
from sanderling.bundle.reader import Bundle
from sanderling.runtime.clock import Clock, SystemClock
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.releases import metadata
from sanderling_trainer.releases.create import DEFAULT_LIFETIMES
from sanderling_trainer.releases.errors import ReleaseError
from sanderling_trainer.releases.keys import ONLINE_ROLES, KeyFolder
from sanderling_trainer.releases.metadata import Lifetimes, State

ATTEMPTS = 5
"""How often a change is made again because another process changed the repository meanwhile."""

LEFTOVER_S = 86_400
"""Half-written files of killed calls are removed after so many seconds."""


@dataclass(frozen=True)
class Published:
    """What `publish` found or did."""

    release: int

    percent: int
    """Of the installs, now."""

    is_new: bool
    """False when the same bundle had been published before."""


class ReleaseRepository:
    """A repository, and the online keys that sign what is published in it.

    Raises `ReleaseError` from each method when there is no repository or a key is missing.
    """

    def __init__(
        self,
        store: ObjectStore,
        keys: KeyFolder,
        *,
        lifetimes: Lifetimes = DEFAULT_LIFETIMES,
        clock: Clock | None = None,
    ) -> None:
        self.store = store
        self._keys = keys
        self._lifetimes = lifetimes
        self._clock = clock or SystemClock()

    def publish(self, bundle: Path, percent: int = 100) -> Published:
        """Release a bundle to a percentage of the installs of its app.

        A bundle that is published already changes nothing, its percentage included; a call that was
        killed can be repeated. Raises `BundleError` when the bundle is damaged, and `ReleaseError`
        when it does not compute its golden vectors, or its number is not above all published ones.
        """
        _check_percent(percent)
        read = Bundle.open(bundle, verify=True)
        manifest = read.manifest
        release = manifest.release
        targets = {
            _path(release, name): TargetFile.from_file(
                _path(release, name), str(bundle / name), ["sha256"]
            )
            for name in (*manifest.files, MANIFEST)
        }

        state = metadata.read_state(self.store)
        if not self._is_published(targets, state.targets, bundle, release):
            self._signers(state, ONLINE_ROLES)
            _check_golden(read)
        self._store_files(bundle, targets)

        is_new = False

        def add(published: Targets) -> bool:
            nonlocal is_new
            is_new = not self._is_published(targets, published, bundle, release)
            if is_new:
                published.targets.update(targets)
                _describe(published, release, {"app": manifest.app, "rollout": percent})
            return is_new

        changed = self.change_targets(add)
        self.store.clean(LEFTOVER_S)
        return Published(release, _description(changed, release)["rollout"], is_new)

    def set_rollout(self, release: int, percent: int) -> None:
        """Change the percentage of installs that get a published release; 0 withdraws it.

        Installs that have the release keep it. Raises `ReleaseError` when it is not published.
        """
        _check_percent(percent)

        def change(published: Targets) -> bool:
            if _path(release, MANIFEST) not in published.targets:
                known = ", ".join(map(str, sorted(releases_in(published)))) or "none"
                raise ReleaseError(
                    f"{self.store.location('')}: expected the number of a published release"
                    f" ({known}), found {release}"
                )
            _describe(published, release, {"rollout": percent})
            return True

        self.change_targets(change)

    def refresh(self, within: timedelta | None = None) -> list[str]:
        """Sign the same releases with new dates, so that they do not expire; return which roles.

        With `within`, only the roles that expire before then, and those that depend on them.
        """
        for _ in range(ATTEMPTS):
            state = metadata.read_state(self.store)
            limit = None if within is None else metadata.now(self._clock) + within
            due = metadata.needed_roles(
                [name for name in ONLINE_ROLES if limit is None or state.role(name).expires < limit]
            )
            if not due or self._sign(state, due):
                return due
        raise self._busy()

    def change_targets(self, change: Callable[[Targets], bool]) -> Targets:
        """Apply a change to the published targets, and sign them if it returns True.

        The change is applied again, to newer targets, when another process has published meanwhile.
        """
        for _ in range(ATTEMPTS):
            state = metadata.read_state(self.store)
            if not change(state.targets) or self._sign(state, ONLINE_ROLES):
                return state.targets
        raise self._busy()

    def _sign(self, state: State, roles: tuple[str, ...] | list[str]) -> bool:
        """Sign roles; return whether this was done before any other process did."""
        signers = self._signers(state, roles)
        try:
            metadata.sign_online_roles(self.store, state, signers, self._lifetimes, self._clock)
        except FileExistsError:
            return False
        return True

    def _signers(self, state: State, roles: tuple[str, ...] | list[str]) -> Mapping[str, Any]:
        return {name: self._keys.signer(name, state.root.roles[name].keyids) for name in roles}

    def _busy(self) -> ReleaseError:
        return ReleaseError(
            f"{self.store.location('')}: expected no other process to publish, found changes by"
            f" others in each of {ATTEMPTS} attempts; run it again"
        )

    def _is_published(
        self, targets: Mapping[str, TargetFile], published: Targets, bundle: Path, release: int
    ) -> bool:
        """Return whether exactly these files are published.

        Raises `ReleaseError` when others are, under this number or a higher one.
        """
        numbers = releases_in(published)
        if release in numbers:
            found = {
                path: target
                for path, target in published.targets.items()
                if _release_of(path) == release
            }
            if _contents(found) == _contents(targets):
                return True

        highest = max(numbers, default=0)
        if release <= highest:
            raise ReleaseError(
                f"{bundle}: release: expected a number above {highest}, the highest published, or"
                f" the same files as release {release}, found {release} with other files; train"
                " with --parent, or retrain, so that the number goes on"
            )
        return False

    def _store_files(self, bundle: Path, targets: Mapping[str, TargetFile]) -> None:
        """Copy files to the names under which clients ask for them, their hash in front."""
        for path, target in targets.items():
            folder, name = path.rsplit("/", 1)
            stored = f"targets/{folder}/{target.hashes['sha256']}.{name}"
            if not self.store.has(stored):
                self.store.put(stored, (bundle / name).read_bytes())


def releases_in(targets: Targets) -> dict[int, Mapping[str, Any]]:
    """Return the published releases by number: app, release, rollout in per cent."""
    return {
        release: _description(targets, release)
        for path in targets.targets
        if path.endswith(f"/{MANIFEST}") and (release := _release_of(path)) is not None
    }


def _path(release: int, name: str) -> str:
    return f"releases/{release}/{name}"


def _release_of(path: str) -> int | None:
    """Return the release that a target belongs to."""
    parts = path.split("/")
    if len(parts) == 3 and parts[0] == "releases" and parts[1].isdecimal():
        return int(parts[1])
    return None


def _contents(targets: Mapping[str, TargetFile]) -> dict[str, tuple[int, str]]:
    return {path: (target.length, target.hashes["sha256"]) for path, target in targets.items()}


def _description(targets: Targets, release: int) -> dict[str, Any]:
    return dict(targets.targets[_path(release, MANIFEST)].custom or {})


def _describe(targets: Targets, release: int, fields: Mapping[str, Any]) -> None:
    """Set custom fields of a release's manifest target, which devices choose a release by."""
    description = {**_description(targets, release), "release": release, **fields}
    targets.targets[_path(release, MANIFEST)].unrecognized_fields["custom"] = description


def _check_percent(percent: int) -> None:
    if not 0 <= percent <= 100:
        raise ReleaseError(f"rollout: expected a percentage from 0 to 100, found {percent}")


def _check_golden(bundle: Bundle) -> None:
    """Raise `ReleaseError` when a bundle does not compute here what it computed in the lab."""
    from sanderling.ranking.golden_check import faults

    found = faults(bundle)
    if found:
        raise ReleaseError(
            f"{bundle.folder}: expected its golden vectors, found: {'; '.join(found)}; it is not"
            " published, because every device would refuse it; quantize the checkpoint again"
        )
