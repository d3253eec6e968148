"""Tries a bundle in a child process with limits: it may hang, swell or crash there."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sanderling.bundle.reader import Bundle
from sanderling.errors import BundleError
from sanderling.runtime.child_process import ChildFailedError, run_module

MEMORY_BYTES = 2 * 2**30
"""Address space of the child, beside four times the bundle's bytes."""

CPU_S = 60
"""Processor time of the child in seconds, beside one for each MiB of the bundle."""

WALL_FACTOR = 5
"""How many times its processor time the child may take by the clock: a device may be busy."""

# Signals by which the system ends a process for what it does; others come from outside.
_OWN_FAULT = {
    getattr(signal, name, None)
    for name in ("SIGXCPU", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS")
}


class ProbeRequest(msgspec.Struct, frozen=True):
    """Which bundle to try, and the limits. The child reads it as JSON on its standard input."""

    folder: str
    memory_bytes: int
    cpu_s: int


class ProbeAnswer(msgspec.Struct, frozen=True):
    """What the child found, as JSON on its standard output."""

    faults: list[str] = []
    """What is wrong with the bundle; empty when nothing is."""

    missing: str = ""
    """What has to be installed before the bundle can be tried; empty when nothing has."""


class ProbeMissingError(Exception):
    """The encoder cannot be tried because the extra `text` is not installed."""


def probe(
    folder: Path,
    *,
    command: Sequence[str] | None = None,
    cpu_s: int = CPU_S,
    timeout_s: float | None = None,
) -> list[str]:
    """Return what is wrong with a bundle; an empty list when nothing is.

    A child opens it, checks hashes, values and operators, loads encoder and tokenizer, and computes
    the golden vectors. A child that exceeds its memory or time, or crashes, is a fault of the
    bundle. `timeout_s` bounds the time by the clock further.

    Raises `ProbeMissingError` without the extra `text`, and `ChildFailedError` where no child can
    be started, it is killed from outside, or does not end within `timeout_s`.
    """
    bundle_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    cpu_s += bundle_bytes // 2**20
    request = ProbeRequest(str(folder), MEMORY_BYTES + 4 * bundle_bytes, cpu_s)
    own_timeout_s = float(WALL_FACTOR * cpu_s)
    try:
        output = run_module(
            "sanderling.releases.probe_worker",
            name="the trial of the bundle",
            timeout_s=own_timeout_s if timeout_s is None else min(own_timeout_s, timeout_s),
            stdin=msgspec.json.encode(request),
            environment={"SANDERLING_KERNELS": "numpy"},
            command=command,
        )
        answer = msgspec.json.decode(output, type=ProbeAnswer)
    except ChildFailedError as error:
        is_cut_short = timeout_s is not None and timeout_s < own_timeout_s
        if error.signal in _OWN_FAULT or (error.timed_out and not is_cut_short):
            return [f"{error}: it needs more than {cpu_s} s of processor time, or crashes"]
        raise
    except msgspec.MsgspecError as error:
        return [f"the trial's answer cannot be read: {error}"]
    if answer.missing:
        raise ProbeMissingError(answer.missing)
    return answer.faults


def verify_bundle(bundle: Bundle, command: Sequence[str] | None = None) -> None:
    """Raise `BundleError` unless a bundle passes its probe, as far as it can be tried here."""
    try:
        faults = probe(bundle.folder, command=command)
    except ProbeMissingError:
        return  # an encoder that cannot be loaded does no harm
    except ChildFailedError as error:
        raise BundleError(f"{bundle.folder}: could not be verified: {error}") from error
    if faults:
        raise BundleError(f"{bundle.folder}: {'; '.join(faults)}")
