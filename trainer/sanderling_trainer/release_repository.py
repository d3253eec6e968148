"""The release repository: bundles as signed targets of The Update Framework (TUF), served as plain files.

Target files are written first, then targets, snapshot and timestamp metadata, each flushed before the next. The
timestamp is the only file that is ever replaced, so that a crash leaves the previous release visible.
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
ROOT_THRESHOLD = 2
ROOT_DAYS = 3650
ONLINE_ROLES = ("targets", "snapshot", "timestamp")
ONLINE_DAYS = 30

Role = TypeVar("Role", Targets, Snapshot, Timestamp)
AnyRole = TypeVar("AnyRole", Root, Targets, Snapshot, Timestamp)


class ReleaseError(SanderlingError):
    """A repository cannot be made or read, or a release cannot be published in it."""


@dataclass(frozen=True)
class PublicKey:
    """A key that the root trusts for a role, and the file of its private half, if it is in the folder of keys."""

    role: str
    id: str
    file: Path | None


def create_repository(folder: Path, keys: Path, *, expires_days: float = ONLINE_DAYS) -> bytes:
    """Make new keys and an empty repository; return the root.json that the app must carry.

    Two of the three root keys must sign a new root: keep them off line, and only the other keys where releases are
    published. The signed metadata expires after `expires_days` unless something is published or refreshed before.
    """
    metadata = folder / "metadata"
    if metadata.exists():
        raise ReleaseError(
            f"{metadata}: expected no repository yet, found one; choose another folder"
        )
    for name in (*ROOT_KEYS, *ONLINE_ROLES):
        _make_key(keys, name)
    metadata.mkdir(parents=True)
    (folder / "targets").mkdir(exist_ok=True)
    root = Root(expires=_after(ROOT_DAYS), consistent_snapshot=True)
    for name in ROOT_KEYS:
        root.add_key(_signer(keys, name).public_key, Root.type)
    root.roles[Root.type].threshold = ROOT_THRESHOLD
    for name in ONLINE_ROLES:
        root.add_key(_signer(keys, name).public_key, name)
    signed = Metadata(root)
    for name in ROOT_KEYS:
        signed.sign(_signer(keys, name), append=True)
    data = signed.to_bytes()
    files.write_durably(metadata / "1.root.json", data)
    _commit(folder, keys, Targets(), Snapshot(), Timestamp(), expires_days)
    return data


def publish(
    bundle: Path,
    repository: Path,
    keys: Path,
    *,
    rollout: int = 100,
    expires_days: float = ONLINE_DAYS,
) -> int:
    """Release a bundle to `rollout` percent of the installs of its app; return its release number.

    Raises `BundleError` when the bundle is not whole, and `ReleaseError` when its number is not above all published.
    """
    manifest = Bundle.open(bundle, verify=True).manifest
    release = manifest.release
    with _publishing(repository):
        targets, snapshot, timestamp = _next(repository)
        highest = max((number for number in map(_release, targets.targets) if number), default=0)
        if release <= highest:
            raise ReleaseError(
                f"{bundle}: release: expected a number above {highest}, the highest published: {release}"
            )
        for name in (*manifest.files, MANIFEST):
            target = TargetFile.from_file(_path(release, name), str(bundle / name), ["sha256"])
            _store(bundle / name, repository / "targets" / "releases" / str(release), target)
            targets.targets[target.path] = target
        _describe(targets, release, {"app": manifest.app, "release": release, "rollout": rollout})
        _commit(repository, keys, targets, snapshot, timestamp, expires_days)
    return release


def set_rollout(
    release: int, rollout: int, repository: Path, keys: Path, *, expires_days: float = ONLINE_DAYS
) -> None:
    """Widen or withdraw (0) a release that is published; installs that have it keep it."""
    with _publishing(repository):
        targets, snapshot, timestamp = _next(repository)
        found = targets.targets.get(_path(release, MANIFEST))
        if found is None:
            raise ReleaseError(
                f"{repository}: expected a published release, found no {release}; publish it first"
            )
        _describe(targets, release, {**(found.custom or {}), "rollout": rollout})
        _commit(repository, keys, targets, snapshot, timestamp, expires_days)


def refresh(repository: Path, keys: Path, *, expires_days: float = ONLINE_DAYS) -> None:
    """Sign the same releases again, with new expiry dates. A repository without new releases needs it to stay valid."""
    with _publishing(repository):
        _commit(repository, keys, *_next(repository), expires_days)


def expiry_dates(repository: Path) -> dict[str, datetime]:
    """Return when the metadata of each role expires, in UTC: root, targets, snapshot and timestamp."""
    root = _current_root(repository)
    return {
        Root.type: root.expires,
        **{signed.type: signed.expires for signed in _roles(repository)},
    }


def public_keys(repository: Path, keys: Path) -> list[PublicKey]:
    """Return the keys that the newest root trusts, role by role, and which of their private halves `keys` holds."""
    root = _current_root(repository)
    files = {_signer(keys, path.stem).public_key.keyid: path for path in sorted(keys.glob("*.pem"))}
    return [
        PublicKey(name, key, files.get(key))
        for name in (Root.type, *ONLINE_ROLES)
        for key in root.roles[name].keyids
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
    """Serve a repository until interrupted. Any static file server does as well: trust lies in the signatures."""
    uvicorn.run(app(repository), host=host, port=port, log_level="warning")


def _path(release: int, name: str) -> str:
    return f"releases/{release}/{name}"


def _release(path: str) -> int | None:
    parts = path.split("/")
    return (
        int(parts[1])
        if len(parts) == 3 and parts[0] == "releases" and parts[1].isdecimal()
        else None
    )


def _describe(targets: Targets, release: int, custom: dict[str, object]) -> None:
    rollout = custom["rollout"]
    if not isinstance(rollout, int) or not 0 <= rollout <= 100:
        raise ReleaseError(f"rollout: expected a percentage from 0 to 100, found {rollout}")
    targets.targets[_path(release, MANIFEST)].unrecognized_fields["custom"] = custom


@contextmanager
def _publishing(repository: Path) -> Iterator[None]:
    """Let one publisher at a time into the repository."""
    if not (repository / "metadata" / "timestamp.json").is_file():
        raise ReleaseError(
            f"{repository}: expected a release repository, found none; make one with `sanderling release keys`"
        )
    with (repository / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _next(repository: Path) -> tuple[Targets, Snapshot, Timestamp]:
    """Read the three online roles as they are published, and raise their versions."""
    roles = _roles(repository)
    for signed in roles:
        signed.version += 1
    return roles


def _roles(repository: Path) -> tuple[Targets, Snapshot, Timestamp]:
    """Read the three online roles: the timestamp names the snapshot, which names the targets."""
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
    """Read one file of metadata; raise `ReleaseError` where it is missing, damaged, or of another role."""
    path = repository / "metadata" / name
    try:
        signed = Metadata.from_bytes(path.read_bytes()).signed
    except FileNotFoundError as error:
        raise ReleaseError(
            f"{path}: expected the metadata of a release repository, found no such file;"
            " check --repository, or make a repository with `sanderling release keys`"
        ) from error
    except DeserializationError as error:
        raise ReleaseError(
            f"{path}: expected TUF metadata, found a damaged file; restore it: {error}"
        ) from error
    if not isinstance(signed, kind):
        raise ReleaseError(
            f"{path}: expected metadata of the role {kind.type}, found {signed.type}; restore the file"
        )
    return signed


def _commit(
    repository: Path,
    keys: Path,
    targets: Targets,
    snapshot: Snapshot,
    timestamp: Timestamp,
    expires_days: float,
) -> None:
    """Sign and write the three roles; the timestamp, written last, makes them visible."""
    for signed in (targets, snapshot, timestamp):
        signed.expires = _after(expires_days)
    snapshot.meta["targets.json"] = MetaFile(targets.version)
    timestamp.snapshot_meta = MetaFile(snapshot.version)
    metadata = repository / "metadata"
    files.write_durably(metadata / f"{targets.version}.targets.json", _sign(targets, keys))
    files.write_durably(metadata / f"{snapshot.version}.snapshot.json", _sign(snapshot, keys))
    files.write_durably(metadata / "timestamp.json", _sign(timestamp, keys))


def _sign(signed: Role, keys: Path) -> bytes:
    metadata = Metadata(signed)
    metadata.sign(_signer(keys, signed.type))
    return metadata.to_bytes()


def _after(days: float) -> datetime:
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)


def _make_key(keys: Path, name: str) -> None:
    """Write a new private key that only its owner may read; an existing one is never overwritten."""
    keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(keys / f"{name}.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ReleaseError(
            f"{keys / name}.pem: expected no key yet; choose another folder for the keys"
        ) from error
    with os.fdopen(handle, "wb") as file:
        file.write(CryptoSigner.generate_ed25519().private_bytes)
    files.flush_path(keys / f"{name}.pem")
    files.flush_path(keys)


def _signer(keys: Path, name: str) -> CryptoSigner:
    path = keys / f"{name}.pem"
    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), None))
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path}: expected the private key of {name}: {error}") from error


def _store(source: Path, folder: Path, target: TargetFile) -> None:
    """Copy a bundle's file to the name under which clients ask for it, its hash in front."""
    folder.mkdir(parents=True, exist_ok=True)
    for parent in (folder.parent, folder.parent.parent):
        files.flush_path(parent)
    path = folder / f"{target.hashes['sha256']}.{source.name}"
    partial = files.partial_path(path)
    shutil.copyfile(source, partial)
    files.replace_durably(partial, path)
