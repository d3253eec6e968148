"""Reading and signing the metadata of a repository.

The timestamp names the snapshot, which names the targets. These two get new files with new numbers;
the timestamp is replaced, last, and only if it is still the one that was read. So a reader, and the
next call after a crash, sees all of a change or nothing of it, and of two concurrent changes one
fails.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from securesystemslib.signer import Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from sanderling.runtime.clock import Clock
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.releases.errors import ReleaseError
from sanderling_trainer.releases.keys import ONLINE_ROLES, ROOT_KEYS, KeyFolder

AnyRole = TypeVar("AnyRole", Root, Targets, Snapshot, Timestamp)

TIMESTAMP_FILE = "metadata/timestamp.json"
VERSIONED = re.compile(r"metadata/([0-9]+)\.([a-z]+)\.json")


@dataclass(frozen=True)
class Lifetimes:
    """For how many days signatures are valid, by role."""

    root: float = 365
    """Its keys are off line: a new root needs their owners."""

    targets: float = 90

    snapshot: float = 90

    timestamp: float = 14
    """The longest time for which somebody who controls the network can hide a newer release."""


@dataclass
class State:
    """The metadata that devices see now."""

    root: Root
    targets: Targets
    snapshot: Snapshot
    timestamp: Timestamp

    timestamp_bytes: bytes | None = None
    """The file of the timestamp; None when the repository has none yet."""

    def role(self, name: str) -> Root | Targets | Snapshot | Timestamp:
        """Return the metadata of a role."""
        roles: dict[str, Root | Targets | Snapshot | Timestamp] = {
            Root.type: self.root,
            Targets.type: self.targets,
            Snapshot.type: self.snapshot,
            Timestamp.type: self.timestamp,
        }
        return roles[name]


def days_from_now(days: float, clock: Clock) -> datetime:
    """Return a time in so many days, in UTC, without the fractions of a second that TUF lacks."""
    return (now(clock) + timedelta(days=days)).replace(microsecond=0)


def now(clock: Clock) -> datetime:
    """Return the wall clock's time in UTC."""
    return datetime.fromtimestamp(clock.wall_ms() / 1000, UTC)


def is_repository(store: ObjectStore) -> bool:
    """Return whether devices can find a repository in the store."""
    return store.has(TIMESTAMP_FILE)


def read_state(store: ObjectStore) -> State:
    """Return what devices see now; raise `ReleaseError` where there is none, or a file is damaged.

    Signatures are not verified: devices do that, and whoever can write here can sign nothing.
    """
    data = _get(store, TIMESTAMP_FILE)
    timestamp = _parse(store, TIMESTAMP_FILE, data, Timestamp)
    snapshot = _read(store, Snapshot, timestamp.snapshot_meta.version)
    targets = _read(store, Targets, snapshot.meta["targets.json"].version)
    return State(read_root(store), targets, snapshot, timestamp, data)


def read_root(store: ObjectStore) -> Root:
    """Return the root with the highest version."""
    return _read(store, Root, highest_versions(store).get(Root.type, 1))


def highest_versions(store: ObjectStore) -> Mapping[str, int]:
    """Return the highest version of each role that has files, those that a crash left included."""
    versions: dict[str, int] = {}
    for name in store.names("metadata"):
        found = VERSIONED.fullmatch(name)
        if found:
            versions[found[2]] = max(int(found[1]), versions.get(found[2], 0))
    return versions


def file_of(role: str, version: int) -> str:
    """Return the name of a role's file: root, targets and snapshot have one for each version."""
    return f"metadata/{version}.{role}.json"


def sign_online_roles(
    store: ObjectStore,
    state: State,
    signers: Mapping[str, Signer],
    lifetimes: Lifetimes,
    clock: Clock,
) -> None:
    """Sign the roles that have a signer, with new dates, and make them visible.

    Where targets are signed, the snapshot and the timestamp must be too, and where the snapshot is,
    the timestamp. Raises `FileExistsError`, with nothing made visible, when another process has
    changed the repository since `state` was read.
    """
    highest = highest_versions(store)
    targets, snapshot, timestamp = state.targets, state.snapshot, state.timestamp
    # A crash may have left files with higher versions than those that are visible.
    if Targets.type in signers:
        targets.version = highest.get(Targets.type, 0) + 1
        expires = days_from_now(lifetimes.targets, clock)
        data = _sign(targets, state.root, signers, expires)
        store.create(file_of(Targets.type, targets.version), data)
    if Snapshot.type in signers:
        snapshot.version = highest.get(Snapshot.type, 0) + 1
        snapshot.meta["targets.json"] = MetaFile(targets.version)
        expires = days_from_now(lifetimes.snapshot, clock)
        data = _sign(snapshot, state.root, signers, expires)
        store.create(file_of(Snapshot.type, snapshot.version), data)

    timestamp.snapshot_meta = MetaFile(snapshot.version)
    if state.timestamp_bytes is not None:
        timestamp.version += 1
    expires = days_from_now(lifetimes.timestamp, clock)
    data = _sign(timestamp, state.root, signers, expires)
    if state.timestamp_bytes is None:
        store.create(TIMESTAMP_FILE, data)
    else:
        store.replace(TIMESTAMP_FILE, data, state.timestamp_bytes)


def sign_root(root: Root, root_keys: KeyFolder, trusted: Collection[str]) -> Metadata[Root]:
    """Return a root signed by every root key of a folder whose id is `trusted`."""
    signed = Metadata(root)
    for name in ROOT_KEYS:
        for signer in root_keys.signers(name, trusted):
            try:
                signed.sign(signer, append=True)
            except UnsignedMetadataError as error:
                raise ReleaseError(
                    f"{root_keys.folder}: expected {name} to sign, found: {error}"
                ) from error
    return signed


def needed_roles(roles: Collection[str]) -> list[str]:
    """Return the online roles to sign when these are: each role's signature covers those before."""
    first = min((ONLINE_ROLES.index(role) for role in roles), default=len(ONLINE_ROLES))
    return list(ONLINE_ROLES[first:])


def _sign(role: AnyRole, root: Root, signers: Mapping[str, Signer], expires: datetime) -> bytes:
    """Raise `ReleaseError` when a signer fails, or what it signs does not verify."""
    role.expires = expires
    metadata = Metadata(role)
    try:
        metadata.sign(signers[role.type])
        root.verify_delegate(role.type, metadata.signed_bytes, metadata.signatures)
    except UnsignedMetadataError as error:
        raise ReleaseError(
            f"{role.type}: expected a signature by the key that the root trusts, found: {error};"
            " check the signer and its public key in the folder of keys"
        ) from error
    return metadata.to_bytes()


def _read(store: ObjectStore, kind: type[AnyRole], version: int) -> AnyRole:
    name = file_of(kind.type, version)
    return _parse(store, name, _get(store, name), kind)


def _get(store: ObjectStore, name: str) -> bytes:
    try:
        return store.get(name)
    except FileNotFoundError as error:
        raise ReleaseError(
            f"{store.location(name)}: expected the metadata of a release repository, found no such"
            " file; check --repository, or make a repository with `sanderling release init`"
        ) from error


def _parse(store: ObjectStore, name: str, data: bytes, kind: type[AnyRole]) -> AnyRole:
    """Raise `ReleaseError` where metadata is damaged, or of another role."""
    try:
        signed = Metadata.from_bytes(data).signed
    except DeserializationError as error:
        raise ReleaseError(
            f"{store.location(name)}: expected TUF metadata, found a damaged file: {error};"
            " restore the file"
        ) from error

    if not isinstance(signed, kind):
        raise ReleaseError(
            f"{store.location(name)}: expected metadata of the role {kind.type},"
            f" found {signed.type}; restore the file"
        )
    return signed
