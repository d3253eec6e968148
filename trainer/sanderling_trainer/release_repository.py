"""The release repository: bundles as signed targets of The Update Framework (TUF), in plain files.

Bundle files are written first, then targets, snapshot and timestamp metadata, each flushed before
the next. The timestamp is the only file that is ever replaced, so that a crash leaves the previous
release visible.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import uvicorn
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from sanderling.bundle.manifest import MANIFEST
from sanderling.bundle.reader import Bundle
from sanderling.errors import SanderlingError
from sanderling.runtime import files

ROOT_KEYS = ("root-1", "root-2", "root-3")
ROOT_THRESHOLD = 2  # so many of them must sign a new root
ROOT_DAYS = 3650

# The roles whose keys lie where releases are published, each with a key of its own.
ONLINE_ROLES = ("targets", "snapshot", "timestamp")
ONLINE_DAYS = 30

Role = TypeVar("Role", Targets, Snapshot, Timestamp)
AnyRole = TypeVar("AnyRole", Root, Targets, Snapshot, Timestamp)
OnlineRoles = tuple[Targets, Snapshot, Timestamp]


class ReleaseError(SanderlingError):
    """A repository cannot be created or read, or a release cannot be published in it."""


@dataclass(frozen=True)
class PublicKey:
    """A key that the root trusts for a role."""

    role: str
    id: str

    file: Path | None
    """The file of the private key; None when it is not in the folder of keys."""


def create_repository(folder: Path, keys: Path, *, expires_days: float = ONLINE_DAYS) -> bytes:
    """Create new keys and an empty repository; return the root.json that the app must ship.

    Two of the three root keys must sign a new root: keep them offline, and only the other keys
    where releases are published. The metadata expires after `expires_days` unless something is
    published or refreshed before. Raises `ReleaseError` where a repository or a key exists already.
    """
    metadata = folder / "metadata"
    if metadata.exists():
        raise ReleaseError(
            f"{metadata}: expected no repository yet, found one; choose another folder"
        )

    for name in (*ROOT_KEYS, *ONLINE_ROLES):
        create_key(keys, name)
    metadata.mkdir(parents=True)
    (folder / "targets").mkdir(exist_ok=True)

    data = _signed_root(keys)
    files.write_durably(metadata / "1.root.json", data)
    sign_online_roles(folder, keys, (Targets(), Snapshot(), Timestamp()), expires_days)
    return data


def _signed_root(keys: Path) -> bytes:
    root = Root(expires=_days_from_now(ROOT_DAYS), consistent_snapshot=True)
    for name in ROOT_KEYS:
        root.add_key(load_key(keys, name).public_key, Root.type)
    root.roles[Root.type].threshold = ROOT_THRESHOLD
    for name in ONLINE_ROLES:
        root.add_key(load_key(keys, name).public_key, name)

    metadata = Metadata(root)
    for name in ROOT_KEYS:
        metadata.sign(load_key(keys, name), append=True)
    return metadata.to_bytes()


def publish(
    bundle: Path,
    repository: Path,
    keys: Path,
    *,
    rollout: int = 100,
    expires_days: float = ONLINE_DAYS,
) -> int:
    """Release a bundle to `rollout` percent of the installs of its app; return its release number.

    Raises `BundleError` when the bundle is damaged, and `ReleaseError` when its number is not above
    all published ones.
    """
    manifest = Bundle.open(bundle, verify=True).manifest
    release = manifest.release

    with _exclusive(repository):
        roles = next_online_roles(repository)
        targets, _, _ = roles
        highest = max((number for number in map(_release_of, targets.targets) if number), default=0)
        if release <= highest:
            raise ReleaseError(
                f"{bundle}: release: expected a number above {highest}, the highest published,"
                f" found {release}; build the bundle from the next checkpoint"
            )

        for name in (*manifest.files, MANIFEST):
            path = _target_path(release, name)
            target = TargetFile.from_file(path, str(bundle / name), ["sha256"])
            _store(bundle / name, repository / "targets" / "releases" / str(release), target)
            targets.targets[path] = target

        _describe(targets, release, {"app": manifest.app, "release": release, "rollout": rollout})
        sign_online_roles(repository, keys, roles, expires_days)
    return release


def set_rollout(
    release: int, rollout: int, repository: Path, keys: Path, *, expires_days: float = ONLINE_DAYS
) -> None:
    """Change the percentage of installs that get a published release; 0 withdraws it.

    Installs that have the release keep it. Raises `ReleaseError` when it is not published.
    """
    with _exclusive(repository):
        roles = next_online_roles(repository)
        targets, _, _ = roles
        target = targets.targets.get(_target_path(release, MANIFEST))
        if target is None:
            raise ReleaseError(
                f"{repository}: expected a published release, found no {release}; publish it first"
            )
        _describe(targets, release, {**(target.custom or {}), "rollout": rollout})
        sign_online_roles(repository, keys, roles, expires_days)


def refresh(repository: Path, keys: Path, *, expires_days: float = ONLINE_DAYS) -> None:
    """Sign the same releases again, with new expiry dates.

    A repository in which nothing is published needs this to stay valid.
    """
    with _exclusive(repository):
        sign_online_roles(repository, keys, next_online_roles(repository), expires_days)


def expiry_dates(repository: Path) -> dict[str, datetime]:
    """Return when the metadata of each role expires, in UTC: root, targets, snapshot, timestamp."""
    root = _current_root(repository)
    online = {role.type: role.expires for role in _online_roles(repository)}
    return {Root.type: root.expires, **online}


def public_keys(repository: Path, keys: Path) -> list[PublicKey]:
    """Return the keys that the newest root trusts, role by role, and their files in `keys`."""
    root = _current_root(repository)
    private = {
        load_key(keys, path.stem).public_key.keyid: path for path in sorted(keys.glob("*.pem"))
    }
    return [
        PublicKey(role, key, private.get(key))
        for role in (Root.type, *ONLINE_ROLES)
        for key in root.roles[role].keyids
    ]


def app(repository: Path) -> Starlette:
    """Return the ASGI application that serves a repository's files."""
    return Starlette(
        routes=[
            Mount(f"/{name}", StaticFiles(directory=repository / name))
            for name in ("metadata", "targets")
        ]
    )


def serve(repository: Path, host: str, port: int) -> None:
    """Serve a repository until interrupted.

    Any other static file server will do: devices trust the signatures, not the server.
    """
    uvicorn.run(app(repository), host=host, port=port, log_level="warning")


def _target_path(release: int, name: str) -> str:
    return f"releases/{release}/{name}"


def _release_of(path: str) -> int | None:
    """Return the release that a target belongs to."""
    parts = path.split("/")
    if len(parts) == 3 and parts[0] == "releases" and parts[1].isdecimal():
        return int(parts[1])
    return None


def _describe(targets: Targets, release: int, description: dict[str, object]) -> None:
    """Set the custom fields of a release's manifest target, which devices choose a release by."""
    rollout = description["rollout"]
    if not isinstance(rollout, int) or not 0 <= rollout <= 100:
        raise ReleaseError(f"rollout: expected a percentage from 0 to 100, found {rollout}")

    targets.targets[_target_path(release, MANIFEST)].unrecognized_fields["custom"] = description


@contextmanager
def _exclusive(repository: Path) -> Iterator[None]:
    """Hold the repository's lock, so that one process at a time publishes."""
    if not (repository / "metadata" / "timestamp.json").is_file():
        raise ReleaseError(
            f"{repository}: expected a release repository, found none;"
            " create one with `sanderling release keys`"
        )

    with (repository / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def next_online_roles(repository: Path) -> OnlineRoles:
    """Return the published online roles with their versions raised by one."""
    roles = _online_roles(repository)
    for role in roles:
        role.version += 1
    return roles


def _online_roles(repository: Path) -> OnlineRoles:
    """Read the online roles: the timestamp names the snapshot, which names the targets."""
    timestamp = _read(repository, "timestamp.json", Timestamp)
    snapshot = _read(repository, f"{timestamp.snapshot_meta.version}.snapshot.json", Snapshot)
    targets = _read(repository, f"{snapshot.meta['targets.json'].version}.targets.json", Targets)
    return targets, snapshot, timestamp


def _current_root(repository: Path) -> Root:
    """Read the root with the highest version."""
    names = [path.name for path in (repository / "metadata").glob("*.root.json")]
    versions = [int(name.split(".")[0]) for name in names if name.split(".")[0].isdecimal()]
    return _read(repository, f"{max(versions, default=1)}.root.json", Root)


def _read(repository: Path, name: str, kind: type[AnyRole]) -> AnyRole:
    """Read one file of metadata; raise `ReleaseError` where it is missing, damaged, or of another
    role.
    """
    path = repository / "metadata" / name
    try:
        signed = Metadata.from_bytes(path.read_bytes()).signed
    except FileNotFoundError as error:
        raise ReleaseError(
            f"{path}: expected the metadata of a release repository, found no such file;"
            " check --repository, or create a repository with `sanderling release keys`"
        ) from error
    except DeserializationError as error:
        raise ReleaseError(
            f"{path}: expected TUF metadata, found a damaged file: {error}; restore the file"
        ) from error
    if not isinstance(signed, kind):
        raise ReleaseError(
            f"{path}: expected metadata of the role {kind.type}, found {signed.type};"
            " restore the file"
        )
    return signed


def sign_online_roles(
    repository: Path, keys: Path, roles: OnlineRoles, expires_days: float
) -> None:
    """Sign and write the online roles; the timestamp, written last, makes the others visible."""
    targets, snapshot, timestamp = roles
    for role in roles:
        role.expires = _days_from_now(expires_days)
    snapshot.meta["targets.json"] = MetaFile(targets.version)
    timestamp.snapshot_meta = MetaFile(snapshot.version)

    metadata = repository / "metadata"
    files.write_durably(metadata / f"{targets.version}.targets.json", _sign(targets, keys))
    files.write_durably(metadata / f"{snapshot.version}.snapshot.json", _sign(snapshot, keys))
    files.write_durably(metadata / "timestamp.json", _sign(timestamp, keys))


def _sign(role: Role, keys: Path) -> bytes:
    metadata = Metadata(role)
    metadata.sign(load_key(keys, role.type))
    return metadata.to_bytes()


def _days_from_now(days: float) -> datetime:
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)  # TUF has no fractions


def create_key(keys: Path, name: str) -> None:
    """Write a new private key that only its owner may read.

    Raises `ReleaseError` where a key of this name exists: losing it could end all updates.
    """
    keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = keys / f"{name}.pem"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ReleaseError(
            f"{path}: expected no key yet, found one; choose another folder for the keys"
        ) from error

    with os.fdopen(handle, "wb") as file:
        file.write(CryptoSigner.generate_ed25519().private_bytes)
    files.flush_path(path)
    files.flush_path(keys)


def load_key(keys: Path, name: str) -> CryptoSigner:
    """Return the signer that a private key makes; raise `ReleaseError` when it cannot be read."""
    path = keys / f"{name}.pem"
    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), None))
    except (OSError, ValueError) as error:
        raise ReleaseError(
            f"{path}: expected the private key of {name}, found: {error}; check --keys"
        ) from error


def _store(source: Path, folder: Path, target: TargetFile) -> None:
    """Copy a bundle's file to the name under which clients ask for it, its hash in front."""
    folder.mkdir(parents=True, exist_ok=True)
    for parent in (folder.parent, folder.parent.parent):
        files.flush_path(parent)

    path = folder / f"{target.hashes['sha256']}.{source.name}"
    partial = files.partial_path(path)
    shutil.copyfile(source, partial)
    files.replace_durably(partial, path)
