"""The parent's side of an update: everything that touches the network or a bundle not yet trusted
happens in a child process (`update_worker`)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from sanderling.errors import UpdateError
from sanderling.releases.probe import CPU_S
from sanderling.releases.slots import Slots
from sanderling.releases.update_lock import exclusive
from sanderling.runtime.child_process import ChildFailedError, run_module

TIMEOUT_S = 900.0

STAGING = ".incoming"
"""The folder, beside the installed bundles, in which one is put together."""


class UpdateRequest(msgspec.Struct, frozen=True):
    """What to update, and from where. The child reads it as JSON on its standard input."""

    url: str
    """Address of the repository; `metadata/` and `targets/` lie below it."""

    root: bytes
    """The root.json that the app ships: whom to trust."""

    folder: str
    """The folder of the installed bundles. The signed metadata is kept beside it, in `tuf/`."""

    app: str
    """Name of the app; releases of other apps are ignored."""

    current_release: int
    """Only releases above this one are installed."""

    install: str = ""
    """The install's id, which partial rollouts go by; without one, only full rollouts count."""

    active_folder: str | None = None
    """The active bundle: files that the new release shares with it are copied, not downloaded."""

    end_s: float | None = None
    """When the update is stopped, in seconds of the machine's monotonic clock; None: never."""

    probe_cpu_s: int = CPU_S
    """Seconds of processor time that the trial of the bundle may take, beside its size."""

    child_command: Sequence[str] | None = None
    """What starts a child process; see `EngineOptions.child_command`."""


class UpdateAnswer(msgspec.Struct, frozen=True):
    """What the child did, as JSON on its standard output."""

    release: int | None = None
    """The release that was installed, or None when there is none newer."""

    fault: str = ""
    """Why the update failed; empty when it did not."""

    refused_release: int | None = None
    """A release that can never run on this device, and is to be blocked."""


def fetch(request: UpdateRequest, timeout_s: float = TIMEOUT_S) -> Path | None:
    """Install the newest release; return its folder, or None when there is none newer.

    A release whose content is at fault is blocked. Raises `UpdateError` for everything that goes
    wrong in the child or on the network, after at most `timeout_s` seconds, and `StorageError` when
    the state of the installed bundles cannot be read.
    """
    slots = Slots(Path(request.folder))
    slots.state()  # damaged? Then fetch nothing: a release that was blocked might come back

    end_s = time.monotonic() + timeout_s
    answer = _run_worker(msgspec.structs.replace(request, end_s=end_s), timeout_s)
    if answer.refused_release is not None:
        slots.block(answer.refused_release, answer.fault)
    if answer.fault:
        raise UpdateError(answer.fault)

    return None if answer.release is None else slots.path(answer.release)


def _run_worker(request: UpdateRequest, timeout_s: float) -> UpdateAnswer:
    try:
        output = run_module(
            "sanderling.releases.update_worker",
            name="the updater",
            timeout_s=timeout_s,
            stdin=msgspec.json.encode(request),
            command=request.child_command,
        )
        return msgspec.json.decode(output, type=UpdateAnswer)
    except ChildFailedError as error:
        _remove_staging(Path(request.folder))
        raise UpdateError(f"{error}; the active bundle stays, and can be updated later") from error
    except msgspec.MsgspecError as error:
        raise UpdateError(f"the updater's answer cannot be read: {error}") from error


def _remove_staging(folder: Path) -> None:
    """Remove what a child that was stopped has left, unless another one is at work there."""
    with suppress(UpdateError, OSError), exclusive(folder.parent / "tuf"):
        shutil.rmtree(folder / STAGING, ignore_errors=True)
