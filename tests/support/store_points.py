"""Named points at which a collector or a job may die: before and after each kind of operation on the files of a store.

Nothing is planted in the code: the functions of the operating system tell.
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
    """Ends the process, as `kill -9` does, at the `nth` passing of one point, or `stops` it there until SIGCONT.

    Notes all passings in `record`. Watches from `watch` on until the process ends: for processes that were made to die.
    """

    def __init__(
        self,
        root: Path,
        point: str = "",
        nth: int = 1,
        record: Path | None = None,
        stops: bool = False,
    ) -> None:
        self.root, self.point, self.nth, self.stops = root, point, nth, stops
        self.record = record.open("a", buffering=1) if record is not None else None
        self.seen: Counter[str] = Counter()

    def passing(self, point: str) -> None:
        self.seen[point] += 1
        if self.record is not None:
            self.record.write(point + "\n")
        if point != self.point or self.seen[point] < self.nth:
            return
        if not self.stops:
            os._exit(137)
        if self.seen[point] == self.nth:
            os.kill(os.getpid(), signal.SIGSTOP)

    def watch(self) -> None:
        for owner, name in ((Path, "mkdir"), (Path, "unlink"), (Path, "rename"), (os, "link")):
            setattr(
                owner, name, self._around(name, getattr(owner, name), lambda path, *_: Path(path))
            )
        os.fsync = self._around(
            "fsync", os.fsync, lambda handle: Path(f"/proc/self/fd/{handle}").readlink()
        )
        plain = Path.open

        def watched_open(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
            file = plain(path, mode, *rest, **more)
            return WatchedFile(file, self, path) if "w" in mode else file

        Path.open = watched_open  # type: ignore[method-assign]

    def named(self, path: Path) -> str:
        """Return the kind of a path: its first folder in the store, and its depth."""
        try:
            parts = path.relative_to(self.root).parts
        except ValueError:
            return "elsewhere"
        if not parts:
            return "store"
        first = (
            parts[0].split(".")[1] if parts[0].startswith(".") else parts[0]
        )  # a part is named by its file
        return first + DEPTHS.get(len(parts), "")

    def _around(self, name: str, act: Callable, path_of: Callable[..., Path]) -> Callable:
        def watched(*arguments: Any, **more: Any) -> Any:
            kind = self.named(path_of(*arguments))
            self.passing(f"before {name} {kind}")
            result = act(*arguments, **more)
            self.passing(f"after {name} {kind}")
            return result

        return watched


class WatchedFile:
    """A file of which half is on its way when its writer dies at the point between."""

    def __init__(self, file: Any, points: StorePoints, path: Path) -> None:
        self.file, self.points, self.kind = file, points, points.named(path)

    def __enter__(self) -> WatchedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> None:
        self.points.passing(f"before write {self.kind}")
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        self.points.passing(f"between writes {self.kind}")
        self.file.write(data[len(data) // 2 :])
        self.points.passing(f"after write {self.kind}")
