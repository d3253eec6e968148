"""Asking a bundle questions from outside: whatever becomes of the child, there is an answer or one sentence.

Refuses to know what the questions are for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sanderling.errors import SanderlingError
from sanderling.runtime.child_process import ChildFailedError, run_module
from sanderling_quantize.gate.probe_protocol import (
    ARRAYS,
    QUESTION,
    WORDS,
    Events,
    ProbeReply,
    Question,
)

TIMEOUT_S = 900.0
MEMORY_BYTES = 2 * 2**30


class NoAnswerError(SanderlingError):
    """The child crashed, hung, or raised; the message says which."""


@dataclass(frozen=True)
class ProbeAnswer:
    """What a device said: words; texts' vectors float32 [q, t] and new items' [q, d]; items [n, d] and biases [n]."""

    words: ProbeReply
    texts: NDArray[np.float32]
    new: NDArray[np.float32]
    items: NDArray[np.float32]
    biases: NDArray[np.float32]


def ask(
    bundle: Path,
    previous: Path | None,
    texts: Sequence[str],
    histories: Sequence[Events],
    repeats: bool,
    timeout_s: float = TIMEOUT_S,
) -> ProbeAnswer:
    """Open the bundle in a child process and let it answer; raise `NoAnswerError` when it does not.

    The child's address space is limited, on Linux, to 2 GiB and four times the bundles' bytes, as an update's probe is.
    """
    folders = [folder for folder in (bundle, previous) if folder is not None]
    memory = MEMORY_BYTES + 4 * sum(size(folder) for folder in folders)
    paths = [str(folder.resolve()) for folder in folders]
    question = Question(
        paths[0], paths[1] if previous else None, list(texts), list(histories), repeats, memory
    )
    with tempfile.TemporaryDirectory(prefix="sanderling-gate-") as name:
        folder = Path(name)
        (folder / QUESTION).write_bytes(msgspec.json.encode(question))
        _run(folder, timeout_s)
        return _read(folder)


def size(folder: Path) -> int:
    """Return the bytes of all files of a flat folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


def _run(folder: Path, timeout_s: float) -> None:
    try:
        run_module(
            "sanderling_quantize.gate.probe_worker",
            str(folder),
            name="the engine",
            timeout_s=timeout_s,
        )
    except ChildFailedError as error:
        raise NoAnswerError(str(error)) from error


def _read(folder: Path) -> ProbeAnswer:
    try:
        words = msgspec.json.decode((folder / WORDS).read_bytes(), type=ProbeReply)
        if words.fault:
            raise NoAnswerError(words.fault)
        return ProbeAnswer(words, **load_file(folder / ARRAYS))
    except (OSError, msgspec.MsgspecError, SafetensorError) as error:
        raise NoAnswerError(f"the engine's answer cannot be read: {error}") from error
