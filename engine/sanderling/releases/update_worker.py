"""The child's side of an update, run as `python -m sanderling.releases.update_worker`.

It refreshes the signed metadata (The Update Framework), chooses a release, downloads files to their
signed lengths, opens the bundle within a limit of memory, checks its golden vectors, flushes it to
the disk and gives it its final name. Which bundle is active does not change here.
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
SPARE_BYTES = 16 * 2**20  # disk space that an update leaves free
MEMORY_BYTES = 2 * 2**30  # address space of this process, beside four times the bundle's bytes

# An attacker with the online keys could publish the highest number possible; devices that confirm
# it would reject every honest release after it.
MAX_RELEASE_STEP = 10_000


class TargetDescription(msgspec.Struct, frozen=True):
    """The custom fields of a release's signed manifest target."""

    app: str
    release: Positive

    rollout: Annotated[int, msgspec.Meta(ge=0, le=100)]
    """Percentage of the installs that get the release."""


class _RefusedError(Exception):
    """A complete, signed release that this device can never run."""

    def __init__(self, release: int, reason: str) -> None:
        super().__init__(f"release {release} is refused: {reason}")
        self.release = release


def main() -> None:
    """Read the request from stdin, update, and write the answer to stdout."""
    # Native libraries print to stdout and stderr; the parent reads both, and keeps them in memory.
    answers = os.fdopen(os.dup(1), "wb")
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)  # all that an update writes lies in the engine's state folder

    request = msgspec.json.decode(sys.stdin.buffer.read(), type=UpdateRequest)
    try:
        answer = UpdateAnswer(_update(request))
    except _RefusedError as error:
        answer = UpdateAnswer(fault=str(error), refused_release=error.release)
    except BaseException as error:  # a panic of a native library is no `Exception`
        answer = UpdateAnswer(fault=_explain(error))

    answers.write(msgspec.json.encode(answer))
    answers.close()


def _explain(error: BaseException) -> str:
    """Return an error as a message for the app's operator."""
    if isinstance(error, UpdateError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "tuf":
        return "updating needs the extra `update`: pip install 'sanderling[update]'"

    from tuf.api import exceptions as tuf

    meanings: list[tuple[type[BaseException], str]] = [
        (
            tuf.ExpiredMetadataError,
            "stale: the repository's metadata has expired; run `sanderling release refresh` on the"
            " server, or set this device's clock if that is wrong",
        ),
        (
            tuf.BadVersionNumberError,
            "the repository offers older metadata than this device has seen (a rollback);"
            " check the server or its mirror",
        ),
        (
            tuf.UnsignedMetadataError,
            "the repository's metadata is not signed by the trusted keys;"
            " check the address and the root.json of the app",
        ),
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
    """Install the newest release that fits; return its number, or None when there is none."""
    folder = Path(request.folder)
    trust = folder.parent / "tuf"
    trust.mkdir(parents=True, exist_ok=True)

    with _exclusive(trust):
        # Downloads pass through the temporary folder; /tmp is often in memory, and small.
        tempfile.tempdir = str(trust)
        for leftover in trust.glob("tmp*"):
            leftover.unlink()

        updater = _refresh(request, trust)
        release = _newest_release(_signed_targets(trust), request)
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
def _exclusive(trust: Path) -> Iterator[None]:
    """Hold the lock of the metadata folder.

    This process outlives a parent that is killed, so that a second one may be started beside it.
    """
    with (trust / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UpdateError(
                f"{trust.parent}: another update is running for this state folder;"
                " try again when it has ended"
            ) from error
        yield


def _refresh(request: UpdateRequest, trust: Path) -> Updater:
    """Bring the signed metadata up to date, and to the disk before anything relies on it."""
    from tuf.ngclient.updater import Updater
    from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

    url = request.url.rstrip("/")
    updater = Updater(
        metadata_dir=str(trust),
        metadata_base_url=f"{url}/metadata/",
        target_base_url=f"{url}/targets/",
        fetcher=Urllib3Fetcher(socket_timeout=SOCKET_TIMEOUT_S),
        bootstrap=request.root,
    )
    updater.refresh()

    for path in [*trust.rglob("*"), trust, trust.parent]:
        files.flush_path(path)
    return updater


def _signed_targets(trust: Path) -> Mapping[str, TargetFile]:
    """Return all targets by path. The updater itself only looks up paths that are given."""
    from tuf.api.metadata import Metadata, Targets

    return Metadata[Targets].from_file(str(trust / "targets.json")).signed.targets


def _newest_release(targets: Mapping[str, TargetFile], request: UpdateRequest) -> int | None:
    """Return the highest release that is for this app and install and may run here, or None."""
    state = Slots(Path(request.folder)).state()
    descriptions = [
        _description(path, target)
        for path, target in targets.items()
        if path.endswith(f"/{MANIFEST}")
    ]
    newest = max(
        (
            description.release
            for description in descriptions
            if description.app == request.app
            and description.release > request.current_release
            and in_rollout(request.install, description.release, description.rollout)
            and not refusal(state, description.release)
        ),
        default=None,
    )

    highest = max(request.current_release, state.highest)
    if newest is not None and highest and newest > highest + MAX_RELEASE_STEP:
        raise UpdateError(
            f"release {newest}: expected at most {MAX_RELEASE_STEP} above {highest}, the highest"
            " release so far: a number far too high would lock out all later releases"
        )
    return newest


def _description(path: str, target: TargetFile) -> TargetDescription:
    try:
        description = msgspec.convert(target.custom, TargetDescription)
    except msgspec.ValidationError as error:
        raise UpdateError(
            f"{path}: expected the custom fields app, release and rollout, found: {error};"
            " publish the release with `sanderling release publish`"
        ) from error

    if path != f"releases/{description.release}/{MANIFEST}":
        raise UpdateError(
            f"{path}: expected releases/{description.release}/{MANIFEST}, the path of the release"
            " that it describes"
        )
    return description


def in_rollout(install: str, release: int, percent: int) -> bool:
    """Return whether an install takes part in a rollout.

    An install that takes part at one percentage takes part at every higher one. An install without
    an id takes part in full rollouts only.
    """
    if not install:
        return percent == 100

    digest = hashlib.sha256(f"{install}/{release}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100 < percent


def _install(updater: Updater, release: int, staging: Path, request: UpdateRequest) -> None:
    """Bring a release's files into `staging`, probe the bundle, and give it its final name."""
    manifest = _download_manifest(updater, release, staging, request.app)
    targets = {name: _target(updater, release, name, manifest) for name in manifest.files}
    lengths = [target.length for target in targets.values()]
    # A download lies in a temporary file before it is copied: the largest file needs space twice.
    _check_space(staging, release, sum(lengths) + max(lengths) + SPARE_BYTES)

    slots = Slots(staging.parent)
    sources = list(slots.installed())
    if request.active_folder:
        sources.append(Path(request.active_folder))
    for name, target in targets.items():
        if not any(_copy_if_equal(source / name, target, staging / name) for source in sources):
            updater.download_target(target, str(staging / name))

    _probe(staging, release, sum(lengths))
    files.flush_folder(staging)
    shutil.rmtree(slots.path(release), ignore_errors=True)
    files.publish(staging, slots.path(release))


def _check_space(staging: Path, release: int, needed: int) -> None:
    free = shutil.disk_usage(staging).free
    if needed > free:
        raise UpdateError(
            f"{staging.parent}: release {release} needs {needed} bytes, found {free} free;"
            " free space and update again"
        )


def _download_manifest(updater: Updater, release: int, staging: Path, app: str) -> Manifest:
    target = updater.get_targetinfo(f"releases/{release}/{MANIFEST}")
    if target is None or target.length > manifests.MAX_MANIFEST_BYTES:
        length = "none" if target is None else f"one of {target.length} bytes"
        raise UpdateError(
            f"release {release}: expected a manifest of at most {manifests.MAX_MANIFEST_BYTES}"
            f" bytes, found {length}"
        )
    updater.download_target(target, str(staging / MANIFEST))

    try:
        manifest = manifests.read(staging)
    except BundleError as error:
        raise _RefusedError(release, str(error)) from error
    if manifest.app != app or manifest.release != release:
        raise _RefusedError(
            release,
            f"{MANIFEST}: expected {app} {release}, found {manifest.app} {manifest.release}",
        )

    # An `UpdateError`, not a block: the app may be updated with a newer engine.
    fault = manifests.engine_version_fault(manifest, __version__)
    if fault:
        raise UpdateError(fault)
    return manifest


def _target(updater: Updater, release: int, name: str, manifest: Manifest) -> TargetFile:
    """Return the signed target of one file, which must agree with the manifest."""
    target = updater.get_targetinfo(f"releases/{release}/{name}")
    expected = manifest.files[name]
    signed = (target.length, target.hashes.get("sha256")) if target else None
    if target is None or signed != (expected.length, expected.sha256):
        raise _RefusedError(
            release,
            f"{name}: expected a target with the length and SHA-256 of the manifest,"
            f" found {signed or 'no target'}",
        )
    return target


def _copy_if_equal(source: Path, target: TargetFile, copy: Path) -> bool:
    """Copy a file that is already on this device, and return True, if it is the signed one."""
    from tuf.api.exceptions import LengthOrHashMismatchError

    try:
        if source.stat().st_size != target.length:
            return False

        # The copy is what is hashed: the source could change between check and copy.
        shutil.copyfile(source, copy)
        with copy.open("rb") as file:
            target.verify_length_and_hashes(file)
    except (OSError, LengthOrHashMismatchError):
        return False
    return True


def _probe(staging: Path, release: int, bundle_bytes: int) -> None:
    """Open the bundle and compute its golden vectors within a limit of address space."""
    from sanderling.ranking.golden_check import faults

    limit = MEMORY_BYTES + 4 * bundle_bytes
    with suppress(ValueError):  # macOS has the limit but does not let it be set
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    try:
        golden_faults = faults(Bundle.open(staging, verify=True))
    except BundleError as error:
        raise _RefusedError(release, str(error)) from error
    if golden_faults:
        raise _RefusedError(release, "; ".join(golden_faults))


if __name__ == "__main__":
    main()
