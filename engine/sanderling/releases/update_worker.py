"""The child process of an update: refresh, choose, download, probe, install. Run as `python -m sanderling.releases.update_worker`.

It refreshes the signed metadata (The Update Framework), downloads to the declared lengths, opens the bundle under
resource limits, checks its golden vectors, flushes it to the disk and gives it its name. Refuses to activate anything.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import urllib3

from sanderling.bundle import manifest as manifests
from sanderling.bundle.manifest import MANIFEST, Manifest, Positive
from sanderling.bundle.reader import Bundle
from sanderling.errors import BundleError, UpdateError
from sanderling.releases.slots import Slots, refusal
from sanderling.releases.updater import UpdateAnswer, UpdateRequest
from sanderling.runtime import files
from sanderling.version import __version__

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile
    from tuf.ngclient.updater import Updater

SOCKET_TIMEOUT_S = 15
MAX_STEP = 10_000
MEMORY_BYTES = 2 * 2**30
SPARE_BYTES = 16 * 2**20


class Custom(msgspec.Struct, frozen=True):
    """What a release's signed target says of it: the app, the number, and the percentage of installs that take it."""

    app: str
    release: Positive
    rollout: Annotated[int, msgspec.Meta(ge=0, le=100)]


class _RefusedError(Exception):
    """A whole, signed release that this device must not run."""

    def __init__(self, release: int, reason: str) -> None:
        super().__init__(f"release {release} is refused: {reason}")
        self.release = release


def main() -> None:
    """Be the child: read the request, keep the native libraries off the standard output, answer."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=UpdateRequest)
    try:
        answer = UpdateAnswer(_update(request))
    except _RefusedError as error:
        answer = UpdateAnswer(fault=str(error), refused=error.release)
    except BaseException as error:  # native libraries raise panics that are no `Exception`
        answer = UpdateAnswer(fault=_explain(error))
    answers.write(msgspec.json.encode(answer))
    answers.close()


def _explain(error: BaseException) -> str:
    if isinstance(error, UpdateError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "tuf":
        return "updating needs the extra `update`: pip install 'sanderling[update]'"
    from tuf.api import exceptions as tuf

    meanings: list[tuple[type[BaseException], str]] = [
        (
            tuf.ExpiredMetadataError,
            "stale: the repository's metadata has expired (or this device's clock is wrong)",
        ),
        (
            tuf.BadVersionNumberError,
            "the repository offers older metadata than this device has seen (a rollback)",
        ),
        (tuf.UnsignedMetadataError, "the repository's metadata is not signed by the trusted keys"),
        (tuf.LengthOrHashMismatchError, "a file differs from its signed length or hash"),
        (tuf.DownloadLengthMismatchError, "a file is longer than its signed length"),
        (tuf.RepositoryError, "the repository's metadata is not valid"),
        (tuf.DownloadError, "a download failed"),
        (urllib3.exceptions.HTTPError, "a download failed"),
        (MemoryError, "the release needs more memory than an update may use"),
    ]
    meaning = next(
        (text for kind, text in meanings if isinstance(error, kind)), "the updater failed"
    )
    return f"{meaning}: {type(error).__name__}: {error}"


def _update(request: UpdateRequest) -> int | None:
    folder = Path(request.folder)
    trust = folder.parent / "tuf"
    trust.mkdir(parents=True, exist_ok=True)
    with _alone(trust):
        tempfile.tempdir = str(
            trust
        )  # downloads pass through here: /tmp is often memory, and small
        for leftover in trust.glob("tmp*"):
            leftover.unlink()
        updater = _refresh(request, trust)
        release = _newest(_signed_targets(trust), request)
        if release is None:
            return None
        staging = folder / ".incoming"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            _install(updater, release, staging, request)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return release


@contextmanager
def _alone(trust: Path) -> Iterator[None]:
    """Hold the lock of the trust folder: a child outlives a host that was killed, and two would mix their files."""
    with (trust / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UpdateError(
                "another update is running for this state folder; wait for it"
            ) from error
        yield


def _refresh(request: UpdateRequest, trust: Path) -> Updater:
    """Bring the signed metadata up to date, and to the disk before anything relies on it."""
    from tuf.ngclient.updater import Updater
    from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

    updater = Updater(
        metadata_dir=str(trust),
        metadata_base_url=f"{request.url.rstrip('/')}/metadata/",
        target_base_url=f"{request.url.rstrip('/')}/targets/",
        fetcher=Urllib3Fetcher(socket_timeout=SOCKET_TIMEOUT_S),
        bootstrap=request.root,
    )
    updater.refresh()
    for path in [*trust.rglob("*"), trust, trust.parent]:
        files.flush_path(path)
    return updater


def _signed_targets(trust: Path) -> Mapping[str, TargetFile]:
    from tuf.api.metadata import Metadata, Targets

    return Metadata[Targets].from_file(str(trust / "targets.json")).signed.targets


def _newest(targets: Mapping[str, TargetFile], request: UpdateRequest) -> int | None:
    """Return the highest release that this device may and should take, or None."""
    state = Slots(Path(request.folder)).state()
    found = None
    for path, target in targets.items():
        if not path.endswith(f"/{MANIFEST}"):
            continue
        custom = _custom(path, target)
        fits = custom.app == request.app and in_rollout(
            request.install, custom.release, custom.rollout
        )
        if (
            fits
            and custom.release > max(request.current_release, found or 0)
            and not refusal(state, custom.release)
        ):
            found = custom.release
    floor = max(request.current_release, state.highest)
    if found is not None and floor and found > floor + MAX_STEP:
        raise UpdateError(
            f"release {found}: expected at most {MAX_STEP} above {floor}: numbers must not run away"
        )
    return found


def _custom(path: str, target: TargetFile) -> Custom:
    try:
        custom = msgspec.convert(target.custom, Custom)
    except msgspec.ValidationError as error:
        raise UpdateError(
            f"{path}: expected the custom fields app, release and rollout: {error}"
        ) from error
    if path != f"releases/{custom.release}/{MANIFEST}":
        raise UpdateError(f"{path}: expected the path of release {custom.release}")
    return custom


def in_rollout(install: str, release: int, percent: int) -> bool:
    """Return whether an install takes part in a roll-out; raising the percentage never takes one out again."""
    if not install:
        return percent == 100
    digest = hashlib.sha256(f"{install}/{release}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100 < percent


def _install(updater: Updater, release: int, staging: Path, request: UpdateRequest) -> None:
    manifest = _manifest(updater, release, staging, request.app)
    targets = {name: _target(updater, release, name, manifest) for name in manifest.files}
    lengths = [target.length for target in targets.values()]
    needed, free = sum(lengths) + max(lengths) + SPARE_BYTES, shutil.disk_usage(staging).free
    if needed > free:
        raise UpdateError(
            f"release {release} needs {needed} bytes in {staging.parent}, found {free} free"
        )
    slots = Slots(staging.parent)
    sources = [*slots.installed(), *([Path(request.serving)] if request.serving else [])]
    for name, target in targets.items():
        if not any(_copied(source / name, target, staging / name) for source in sources):
            updater.download_target(target, str(staging / name))
    _probe(staging, release, sum(lengths))
    files.flush_folder(staging)
    shutil.rmtree(slots.path(release), ignore_errors=True)
    files.publish(staging, slots.path(release))


def _manifest(updater: Updater, release: int, staging: Path, app: str) -> Manifest:
    target = updater.get_targetinfo(f"releases/{release}/{MANIFEST}")
    if target is None or target.length > manifests.MAX_MANIFEST_BYTES:
        raise UpdateError(
            f"release {release}: expected a manifest of at most {manifests.MAX_MANIFEST_BYTES} bytes"
        )
    updater.download_target(target, str(staging / MANIFEST))
    try:
        manifest = manifests.read(staging)
    except BundleError as error:
        raise _RefusedError(release, str(error)) from error
    if manifest.app != app or manifest.release != release:
        found = f"{manifest.app} {manifest.release}"
        raise _RefusedError(release, f"{MANIFEST}: expected {app} {release}, found {found}")
    fault = manifests.engine_version_fault(manifest, __version__)
    if fault:
        raise UpdateError(fault)
    return manifest


def _target(updater: Updater, release: int, name: str, manifest: Manifest) -> TargetFile:
    """Return the signed target of one file; the manifest must say the same of it."""
    target, entry = updater.get_targetinfo(f"releases/{release}/{name}"), manifest.files[name]
    if target is None or (target.length, target.hashes.get("sha256")) != (
        entry.length,
        entry.sha256,
    ):
        raise _RefusedError(
            release, f"{name}: expected a target with the length and SHA-256 of the manifest"
        )
    return target


def _copied(source: Path, target: TargetFile, copy: Path) -> bool:
    """Copy a file that is already on this device, if it is the wanted one."""
    from tuf.api.exceptions import LengthOrHashMismatchError

    try:
        if source.stat().st_size != target.length:
            return False
        shutil.copyfile(source, copy)
        with copy.open("rb") as file:
            target.verify_length_and_hashes(file)
    except (OSError, LengthOrHashMismatchError):
        return False
    return True


def _probe(staging: Path, release: int, total: int) -> None:
    """Open the bundle and compute its golden vectors, with an upper bound on memory (address space, in bytes)."""
    from sanderling.ranking.golden_check import faults

    with suppress(ValueError):  # macOS knows the limit but refuses to set it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES + 4 * total, MEMORY_BYTES + 4 * total))
    try:
        found = faults(Bundle.open(staging, verify=True))
    except BundleError as error:
        raise _RefusedError(release, str(error)) from error
    if found:
        raise _RefusedError(release, "; ".join(found))


if __name__ == "__main__":
    main()
