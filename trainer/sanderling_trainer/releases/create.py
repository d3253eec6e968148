"""Making a repository, with the keys that devices will trust: the only place that does."""

from __future__ import annotations

from pathlib import Path

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from sanderling.runtime.clock import Clock, SystemClock
from sanderling_trainer.event_log.object_store import LocalObjectStore, ObjectStore
from sanderling_trainer.releases import metadata
from sanderling_trainer.releases.errors import ReleaseError
from sanderling_trainer.releases.keys import (
    ONLINE_ROLES,
    ROOT_KEYS,
    ROOT_THRESHOLD,
    KeyFolder,
    named,
)
from sanderling_trainer.releases.metadata import Lifetimes, State

ROOT_FILE = "root.json"
"""A copy of the newest root, which apps ship."""

DEFAULT_LIFETIMES = Lifetimes()


def create_repository(
    store: ObjectStore,
    keys: KeyFolder,
    root_keys: KeyFolder,
    *,
    lifetimes: Lifetimes = DEFAULT_LIFETIMES,
    clock: Clock | None = None,
) -> bytes:
    """Make an empty repository, and the keys that are missing; return the root that apps ship.

    A call that was killed can be repeated; repeated after it has succeeded, it changes nothing.
    Raises `ReleaseError` where the repository exists with other keys, or the folders of keys are
    not apart from each other and from the repository.
    """
    _check_apart(store, keys.folder, root_keys.folder)
    if metadata.is_repository(store):
        _check_trusted(metadata.read_root(store), store, keys)
    else:
        _create(store, keys, root_keys, lifetimes, clock or SystemClock())

    data = store.get(metadata.file_of(Root.type, metadata.read_root(store).version))
    store.put(ROOT_FILE, data)
    return data


def _create(
    store: ObjectStore, keys: KeyFolder, root_keys: KeyFolder, lifetimes: Lifetimes, clock: Clock
) -> None:
    if metadata.highest_versions(store).get(Root.type, 1) > 1 or store.names("targets"):
        raise ReleaseError(
            f"{store.location(metadata.TIMESTAMP_FILE)}: expected the timestamp of the repository"
            " whose other files are here, found none; restore it from a copy"
        )

    root = Root(expires=metadata.days_from_now(lifetimes.root, clock), consistent_snapshot=True)
    for name in ROOT_KEYS:
        root.add_key(named(root_keys.create(name), name), Root.type)
    root.roles[Root.type].threshold = ROOT_THRESHOLD
    for name in ONLINE_ROLES:
        root.add_key(named(keys.create(name), name), name)

    file = metadata.file_of(Root.type, 1)
    if store.has(file):  # of a call that was killed
        _check_same_keys(metadata.read_root(store), root, store)
    else:
        store.create(file, metadata.sign_root(root, root_keys, root.keys).to_bytes())
    state = State(root, Targets(), Snapshot(), Timestamp())
    signers = {name: keys.signer(name, root.roles[name].keyids) for name in ONLINE_ROLES}
    metadata.sign_online_roles(store, state, signers, lifetimes, clock)


def _check_same_keys(found: Root, made: Root, store: ObjectStore) -> None:
    if found.keys.keys() != made.keys.keys():
        raise ReleaseError(
            f"{store.location(metadata.file_of(Root.type, 1))}: expected the root that an earlier"
            " call made with the keys in these folders, found other keys; give the folders of"
            " that call, or choose another --repository"
        )


def _check_trusted(root: Root, store: ObjectStore, keys: KeyFolder) -> None:
    """Raise `ReleaseError` unless a root trusts the online keys of a folder."""
    for name in ONLINE_ROLES:
        has_key = keys.location(name) is not None
        if not has_key or keys.public_key(name).keyid not in root.roles[name].keyids:
            raise ReleaseError(
                f"{store.location('')}: expected no repository yet, found one whose root does not"
                f" trust the {name} key in {keys.folder}; publish with that repository's keys, or"
                " choose another --repository"
            )


def _check_apart(store: ObjectStore, keys: Path, root_keys: Path) -> None:
    """Raise `ReleaseError` where one theft, or the web server, would give away too much."""
    if keys.resolve() == root_keys.resolve():
        raise ReleaseError(
            f"{root_keys}: expected another folder for the root keys than for the online keys,"
            " found the same; the root keys are to be taken off line"
        )

    for folder in (keys, root_keys):
        if isinstance(store, LocalObjectStore) and folder.resolve().is_relative_to(
            store.root.resolve()
        ):
            raise ReleaseError(
                f"{folder}: expected a folder outside the repository {store.root}, which a web"
                " server shows to everybody"
            )
