"""Named crash points: before and after each kind of operation on the files of a store.

The functions of the operating system are wrapped; the product has no hooks for this.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEPTHS = {1: "", 2: " day", 3: " file"}


class StorePoints:
    """Ends the process, as `kill -9` does, at the `nth` passing of one point, or with `stops`
    suspends it until SIGCONT.

    Writes all passings to `record`. `watch` wraps the functions for good: use it in a child process
    only.
    """

    def __init__(
        self,
        root: Path,
        point: str = "",
        nth: int = 1,
        record: Path | None = None,
        stops: bool = False,
    ) -> None:
        self.root = root
        self.point = point
        self.nth = nth
        self.stops = stops
        self.record = record.open("a", buffering=1) if record is not None else None
        self.passed: Counter[str] = Counter()

    def pass_point(self, point: str) -> None:
        self.passed[point] += 1
        if self.record is not None:
            self.record.write(point + "\n")
        if point != self.point or self.passed[point] < self.nth:
            return
        if not self.stops:
            os._exit(137)
        if self.passed[point] == self.nth:
            os.kill(os.getpid(), signal.SIGSTOP)

    def watch(self) -> None:
        for owner, name in ((Path, "mkdir"), (Path, "unlink"), (Path, "rename"), (os, "link")):
            wrapped = self._around(name, getattr(owner, name), lambda path, *_: Path(path))
            setattr(owner, name, wrapped)
        os.fsync = self._around(
            "fsync", os.fsync, lambda handle: Path(f"/proc/self/fd/{handle}").readlink()
        )
        plain = Path.open

        def watched_open(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
            file = plain(path, mode, *rest, **more)
            return WatchedFile(file, self, path) if "w" in mode else file

        Path.open = watched_open  # type: ignore[method-assign]

    def kind_of(self, path: Path) -> str:
        """Return the kind of a path: its first folder in the store, and its depth."""
        try:
            parts = path.relative_to(self.root).parts
        except ValueError:
            return "elsewhere"
        if not parts:
            return "store"
        # A half-written file is named after its file, with a dot in front.
        first = parts[0].split(".")[1] if parts[0].startswith(".") else parts[0]
        return first + DEPTHS.get(len(parts), "")

    def _around(self, name: str, act: Callable, path_of: Callable[..., Path]) -> Callable:
        def watched(*arguments: Any, **more: Any) -> Any:
            kind = self.kind_of(path_of(*arguments))
            self.pass_point(f"before {name} {kind}")
            result = act(*arguments, **more)
            self.pass_point(f"after {name} {kind}")
            return result

        return watched


class WatchedFile:
    """A file whose writes are done in two halves, with a point between them."""

    def __init__(self, file: Any, points: StorePoints, path: Path) -> None:
        self.file = file
        self.points = points
        self.kind = points.kind_of(path)

    def __enter__(self) -> WatchedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> None:
        self.points.pass_point(f"before write {self.kind}")
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        self.points.pass_point(f"between writes {self.kind}")
        self.file.write(data[len(data) // 2 :])
        self.points.pass_point(f"after write {self.kind}")
