"""The child's side of an update, run as `python -m sanderling.releases.update_worker`.

It refreshes the signed metadata (The Update Framework), chooses a release, downloads files to their
signed lengths, lets a process of its own try the bundle, flushes it to the disk and gives it its
final name. Which bundle is active does not change here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from sanderling.bundle import manifest as manifests
from sanderling.bundle.manifest import MANIFEST, Manifest, Positive
from sanderling.errors import BundleError, UpdateError
from sanderling.releases.probe import ProbeMissingError, probe
from sanderling.releases.slots import Slots, refusal
from sanderling.releases.update_faults import check_root, explain
from sanderling.releases.update_lock import exclusive
from sanderling.releases.updater import STAGING, UpdateAnswer, UpdateRequest
from sanderling.runtime import files
from sanderling.runtime.child_process import ChildFailedError, take_stdout
from sanderling.version import __version__

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile
    from tuf.ngclient.updater import Updater

SOCKET_TIMEOUT_S = 15
SPARE_BYTES = 16 * 2**20  # disk space that an update leaves free
MARGIN_S = 1.0  # what is left of an update's time after the trial of a bundle

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
    answers = take_stdout()
    with suppress(AttributeError, OSError):  # Windows has no sessions
        os.setsid()  # a parent that stops this process stops the trial with it
    os.umask(0o077)  # all that an update writes lies in the engine's state folder

    request = msgspec.json.decode(sys.stdin.buffer.read(), type=UpdateRequest)
    try:
        answer = UpdateAnswer(_update(request))
    except _RefusedError as error:
        answer = UpdateAnswer(fault=str(error), refused_release=error.release)
    except BaseException as error:  # a panic of a native library is no `Exception`
        answer = UpdateAnswer(fault=explain(error))

    answers.write(msgspec.json.encode(answer))
    answers.close()


def _update(request: UpdateRequest) -> int | None:
    """Install the newest release that fits; return its number, or None when there is none."""
    folder = Path(request.folder)
    trust = folder.parent / "tuf"
    trust.mkdir(parents=True, exist_ok=True)

    with exclusive(trust):
        # Downloads pass through the temporary folder; /tmp is often in memory, and small.
        tempfile.tempdir = str(trust)
        for leftover in trust.glob("tmp*"):
            leftover.unlink()

        updater = _refresh(request, trust)
        release = _newest_release(_signed_targets(trust), request)
        if release is None:
            return None

        staging = folder / STAGING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            _install(updater, release, staging, request)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return release


def _refresh(request: UpdateRequest, trust: Path) -> Updater:
    """Bring the signed metadata up to date, and to the disk before anything relies on it."""
    from tuf.ngclient.updater import Updater

    from sanderling.releases.fetcher import NamingFetcher

    check_root(request.root)
    url = request.url.rstrip("/")
    updater = Updater(
        metadata_dir=str(trust),
        metadata_base_url=f"{url}/metadata/",
        target_base_url=f"{url}/targets/",
        fetcher=NamingFetcher(socket_timeout=SOCKET_TIMEOUT_S),
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
    apps = sorted({description.app for description in descriptions})
    if apps and request.app not in apps:
        raise UpdateError(
            f"expected releases of the app {request.app}, found only those of {', '.join(apps)};"
            " check the address of the releases"
        )

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

    _probe(staging, release, request)
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


def _probe(staging: Path, release: int, request: UpdateRequest) -> None:
    """Try the bundle in a process of its own; refuse the release for whatever it does there."""
    left_s = None
    if request.end_s is not None:
        left_s = max(MARGIN_S, request.end_s - time.monotonic() - MARGIN_S)
    try:
        faults = probe(
            staging,
            command=request.child_command,
            cpu_s=request.probe_cpu_s,
            timeout_s=left_s,
        )
    except ProbeMissingError as error:
        raise UpdateError(str(error)) from error
    except ChildFailedError as error:
        hint = "; give the update more time" if error.timed_out else ""
        raise UpdateError(f"release {release} could not be tried: {error}{hint}") from error
    if faults:
        raise _RefusedError(release, "; ".join(faults))


if __name__ == "__main__":
    main()
