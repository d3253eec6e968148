"""The parent's side of an update: everything that touches the network or a bundle not yet trusted
happens in a child process (`update_worker`)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sanderling.errors import UpdateError
from sanderling.releases.slots import Slots
from sanderling.runtime.child_process import ChildFailedError, run_module

TIMEOUT_S = 900.0


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

    answer = _run_worker(request, timeout_s)
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
            environment={"SANDERLING_KERNELS": "numpy"},
        )
        return msgspec.json.decode(output, type=UpdateAnswer)
    except ChildFailedError as error:
        raise UpdateError(f"{error}; the active bundle stays, and can be updated later") from error
    except msgspec.MsgspecError as error:
        raise UpdateError(f"the updater's answer cannot be read: {error}") from error
