"""Fetching a release: everything that touches the network or a bundle not yet trusted happens in a child process.

Whatever becomes of the child (`updater`: a crash, a signal, a hang), the host sees a folder, None, or an
`UpdateError`. Refuses to know which bundle serves: `slots` does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from sanderling.errors import UpdateError
from sanderling.releases.slots import Slots

TIMEOUT_S = 900.0
QUIET = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1", "SANDERLING_KERNELS": "numpy"}


class UpdateRequest(msgspec.Struct, frozen=True):
    """What the child is told, as JSON on its standard input."""

    url: str
    root: bytes
    folder: str
    app: str
    current_release: int
    install: str
    serving: str | None


class UpdateAnswer(msgspec.Struct, frozen=True):
    """What the child says, as JSON on its standard output. `refused` names a release that will never be right here."""

    release: int | None = None
    fault: str = ""
    refused: int | None = None


def fetch(
    url: str,
    root: bytes,
    folder: Path,
    *,
    app: str,
    current_release: int,
    install: str = "",
    serving: Path | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Path | None:
    """Install the newest release above `current_release` under `folder`; return its folder, or None if there is none.

    `url` has `metadata/` and `targets/` below it. `root` is the root.json that came with the app. `install` places
    this device in a partial roll-out; without one it takes full roll-outs only. Files equal to those of an installed
    bundle or of `serving` are copied, not downloaded. The signed metadata is kept beside `folder`, in `tuf/`.
    Raises `UpdateError` for everything that goes wrong, after at most `timeout_s` seconds; a release whose content
    is at fault is blocked.
    """
    slots = Slots(folder)
    slots.state()
    request = UpdateRequest(
        url, root, str(folder), app, current_release, install, str(serving) if serving else None
    )
    answer = _ask(request, timeout_s)
    if answer.refused is not None:
        slots.block(answer.refused, answer.fault)
    if answer.fault:
        raise UpdateError(answer.fault)
    return None if answer.release is None else slots.path(answer.release)


def _ask(request: UpdateRequest, timeout_s: float) -> UpdateAnswer:
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", "sanderling.releases.update_worker"],
            input=msgspec.json.encode(request),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **QUIET},
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UpdateError(
            f"the update took longer than {timeout_s:g} s and was stopped; it starts anew next time"
        ) from error
    except OSError as error:
        raise UpdateError(
            f"the updater could not be started with {sys.executable!r}: {error}"
        ) from error
    if child.returncode < 0:
        cause = signal.strsignal(-child.returncode)
        raise UpdateError(
            f"the updater was killed by signal {-child.returncode} ({cause}); the old bundle serves on"
        )
    try:
        return msgspec.json.decode(child.stdout, type=UpdateAnswer)
    except msgspec.MsgspecError as error:
        raise UpdateError(
            f"the updater ended with status {child.returncode} and without an answer"
        ) from error
