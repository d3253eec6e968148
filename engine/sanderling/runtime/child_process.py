"""Runs a Python module in a child process, so that a crash or a hang there cannot harm this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping

# Each arena of glibc and each thread of OpenBLAS reserves address space, which children may limit.
_SMALL = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}


class ChildFailedError(Exception):
    """The child could not be started, took too long, was killed, or ended with an error."""


def run_module(
    module: str,
    *arguments: str,
    name: str,
    timeout_s: float,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """Run `python -m module arguments` and return what it wrote to stdout.

    `name` says in messages who failed, for example "the updater"; `environment` is added to this
    process's own. Raises `ChildFailedError` unless the child ends with status 0 within `timeout_s`
    seconds; a child that takes longer is killed. Both outputs are read into memory whole.
    """
    try:
        # -P: the current folder belongs to the app, and must not offer modules to the child.
        child = subprocess.run(
            [sys.executable, "-P", "-m", module, *arguments],
            input=stdin,
            capture_output=True,
            env={**os.environ, **_SMALL, **(environment or {})},
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ChildFailedError(
            f"{name} took longer than {timeout_s:g} s and was stopped"
        ) from error
    except OSError as error:
        raise ChildFailedError(
            f"{name} could not be started with the interpreter {sys.executable!r}: {error}"
        ) from error

    if child.returncode < 0:
        cause = signal.strsignal(-child.returncode)
        raise ChildFailedError(f"{name} was killed by signal {-child.returncode} ({cause})")

    if child.returncode > 0:
        # The last line of a traceback names the error.
        last_line = "".join(child.stderr.decode(errors="replace").strip().splitlines()[-1:])
        raise ChildFailedError(
            f"{name} ended with status {child.returncode}: {last_line[:500] or 'no error message'}"
        )

    return child.stdout
