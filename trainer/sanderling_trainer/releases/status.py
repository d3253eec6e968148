"""What a repository holds: releases, keys, and when its signatures expire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tuf.api.metadata import Root

from sanderling.runtime.clock import Clock
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.releases import metadata
from sanderling_trainer.releases.keys import ONLINE_ROLES, ROOT_KEYS, KeyFolder, name_of
from sanderling_trainer.releases.repository import releases_in

WARN_DAYS = {"root": 60, "targets": 7, "snapshot": 7, "timestamp": 7}
"""So many days before a role expires it is warned of: a root needs the owners of its keys."""


@dataclass(frozen=True)
class TrustedKey:
    """A key that the root trusts for a role."""

    role: str
    name: str
    id: str

    location: str | None
    """The file or URI of the private key; None when it is not in the folder of keys."""


@dataclass(frozen=True)
class Status:
    """A repository at one moment."""

    releases: Mapping[int, Mapping[str, Any]]
    """By number: app, release, rollout in per cent."""

    keys: list[TrustedKey]

    expires: Mapping[str, datetime]
    """When the signatures of each role expire, in UTC."""

    near: list[str]
    """The roles that have expired, or do so within `WARN_DAYS`."""


def read_status(store: ObjectStore, keys: KeyFolder | None, clock: Clock) -> Status:
    """Return what a repository holds, and which of its keys a folder has.

    Raises `ReleaseError` where there is no repository.
    """
    state = metadata.read_state(store)
    expires = {name: state.role(name).expires for name in (Root.type, *ONLINE_ROLES)}
    now = metadata.now(clock)
    near = [name for name, date in expires.items() if date < now + timedelta(WARN_DAYS[name])]
    return Status(releases_in(state.targets), _trusted_keys(state.root, keys), expires, near)


def first_online_expiry(expires: Mapping[str, datetime]) -> datetime:
    """Return when the first signature of an online role expires."""
    return min(expires[role] for role in ONLINE_ROLES)


def _trusted_keys(root: Root, keys: KeyFolder | None) -> list[TrustedKey]:
    found = []
    for role in (Root.type, *ONLINE_ROLES):
        for key_id in root.roles[role].keyids:
            name = name_of(root.keys[key_id])
            # Root keys are encrypted, and elsewhere: they are not looked for.
            has_key = (
                keys is not None
                and name not in ROOT_KEYS
                and keys.location(name) is not None
                and keys.public_key(name).keyid == key_id
            )
            location = keys.location(name) if keys is not None and has_key else None
            found.append(TrustedKey(role, name, key_id, location))
    return found
