"""Runs a module of the engine in a child process, so that a crash or a hang there cannot harm this
one."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

# Each arena of glibc and each thread of OpenBLAS reserves address space, which children may limit.
_SMALL = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}

CHILD_MODULES = ("sanderling.releases.update_worker", "sanderling.releases.probe_worker")
"""What `run_child` runs."""


class ChildFailedError(Exception):
    """The child could not be started, took too long, was killed, or ended with an error."""

    def __init__(self, message: str, *, timed_out: bool = False, signal: int = 0) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.signal = signal
        """The number of the signal that ended it, or 0."""


def run_child(arguments: Sequence[str]) -> None:
    """Do the work of a child process of the engine, and return.

    An app that is frozen into one file has no interpreter to run modules with. It starts itself
    instead: open the engine with `child_command=[sys.executable, "--sanderling-child"]`, and call
    this, with the arguments that follow `--sanderling-child`, before anything else where the app
    was started so. Raises `ValueError` for arguments that no engine passes.
    """
    if len(arguments) != 1 or arguments[0] not in CHILD_MODULES:
        raise ValueError(f"expected one of {', '.join(CHILD_MODULES)}, found {list(arguments)}")
    importlib.import_module(arguments[0]).main()


def run_module(
    module: str,
    *arguments: str,
    name: str,
    timeout_s: float,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> bytes:
    """Run `python -m module arguments` and return what it wrote to stdout.

    `name` says in messages who failed, for example "the updater"; `environment` is added to this
    process's own; `command` takes the place of `python -m`. Raises `ChildFailedError` unless the
    child ends with status 0 within `timeout_s` seconds; one that takes longer is killed, with its
    own children if it leads a process group. Both outputs are read into memory whole.
    """
    start = _start_of(command, name)
    try:
        child = subprocess.Popen(
            [*start, module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **_SMALL, **(environment or {})},
        )
    except OSError as error:
        raise ChildFailedError(
            f"{name} could not be started with the interpreter {start[0]!r}: {error}"
        ) from error

    with child:
        try:
            output, errors = child.communicate(stdin, timeout_s)
        except subprocess.TimeoutExpired as error:
            _kill(child)
            raise ChildFailedError(
                f"{name} took longer than {timeout_s:g} s and was stopped", timed_out=True
            ) from error
        except BaseException:
            _kill(child)
            raise

    if child.returncode < 0:
        number = -child.returncode
        cause = signal.strsignal(number)
        raise ChildFailedError(f"{name} was killed by signal {number} ({cause})", signal=number)

    if child.returncode > 0:
        # The last line of a traceback names the error.
        last_line = "".join(errors.decode(errors="replace").strip().splitlines()[-1:])
        raise ChildFailedError(
            f"{name} ended with status {child.returncode}: {last_line[:500] or 'no error message'}"
        )

    return output


def take_stdout() -> IO[bytes]:
    """Return the stdout of this child, and send what native libraries print to nowhere: the parent
    reads both outputs, and keeps them in memory."""
    answers = os.fdopen(os.dup(1), "wb")
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    return answers


def limit_resources(memory_bytes: int, cpu_s: int) -> None:
    """Bound this process's address space and processor time, where the system can."""
    try:
        import resource
    except ImportError:  # Windows has none
        return
    limits = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
    )
    for kind, limit in limits:
        with suppress(ValueError, OSError):  # macOS does not let all of them be set
            hard = resource.getrlimit(kind)[1]
            bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(kind, (bound, hard))


def _start_of(command: Sequence[str] | None, name: str) -> list[str]:
    if command:
        return list(command)
    if getattr(sys, "frozen", False):
        raise ChildFailedError(
            f"{name} could not be started: this app is frozen, so {sys.executable!r} is the app"
            " itself; open the engine with `child_command` (see `sanderling.run_child`)"
        )
    # -P: the current folder belongs to the app, and must not offer modules to the child.
    return [sys.executable, "-P", "-m"]


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a child, and the process group that it leads, if it does."""
    with suppress(AttributeError, ProcessLookupError, PermissionError):  # no killpg on Windows
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
