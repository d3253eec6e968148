"""A folder that appears whole: what is unfinished lies beside it, for the next try to go on."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sanderling.runtime import files
from sanderling_trainer.jobs.lease import BusyError


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """Hold the folder for unfinished work on `out`; it is removed when the work has ended.

    Raises `BusyError` where another process holds it. The lock of a killed process is free.
    """
    folder = out.absolute().with_name(f".{out.absolute().name}.unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(out) from None
        # The other process may have ended, and removed the folder, since the file was opened.
        if os.fstat(lock.fileno()).st_nlink == 0:
            raise _busy(out)
        try:
            yield folder
        except BaseException:
            # What was begun waits for the next try.
            if len(list(folder.iterdir())) == 1:
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def _busy(out: Path) -> BusyError:
    return BusyError(
        f"{out}: expected no other job that writes this folder, found one; start again when it has"
        " ended, or choose another --out"
    )


def appear(finished: Path, out: Path) -> None:
    """Give a finished folder its final name, in place of an older one, whole and durable.

    A crash leaves the old folder, or none, or the new one.
    """
    for path in sorted(finished.rglob("*")):
        files.flush_path(path)
    files.flush_path(finished)

    replaced = finished.with_name("replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if out.exists():
        out.rename(replaced)
    files.publish(finished, out)
    shutil.rmtree(replaced, ignore_errors=True)
