"""A disk whose power can be cut: ext4 on a loop mount, whose shutdown ioctl drops what was not
flushed."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


class LoopDisk:
    """An ext4 file system of 64 MiB in a file, mounted on `folder` between `plug_in` and `unplug`.

    Raises `OSError` where that is not possible: it needs root, mkfs.ext4 and loop devices.
    """

    def __init__(self, place: Path) -> None:
        self.image, self.folder = place / "disk.img", place / "disk"
        self.folder.mkdir()
        with self.image.open("wb") as file:
            file.truncate(64 * 2**20)
        run("mkfs.ext4", "-q", "-F", str(self.image))

    def plug_in(self) -> None:
        run("mount", "-o", "loop", str(self.image), str(self.folder))

    def cut(self) -> None:
        """Fail every operation from now on; what was not flushed never reaches the image."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def cut_under(self, child: int) -> None:
        """Cut the power of a child process too: it stops at once, and is reaped.

        In about one of a hundred parallel runs, a process that continued after `cut` was told by a
        flush under way that it had succeeded.
        """
        os.kill(child, signal.SIGSTOP)
        _, status = os.waitpid(child, os.WUNTRACED)
        self.cut()
        if os.WIFSTOPPED(status):  # it may have come to its end before
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def unplug(self) -> None:
        run("umount", str(self.folder))


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()}")


@contextmanager
def plugged_in(folder: Path, request: pytest.FixtureRequest) -> Iterator[LoopDisk]:
    """Yield such a disk; without one a large test fails, and a small one is skipped."""
    try:
        disk = LoopDisk(folder)
        disk.plug_in()
    except OSError as error:
        abandon_release = pytest.fail if request.node.get_closest_marker("power") else pytest.skip
        abandon_release(f"no power can be cut here: {error}")
    yield disk
    disk.unplug()
