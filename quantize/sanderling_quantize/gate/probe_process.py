"""Runs a bundle in a child process, so that a crash, a hang or a failure becomes one sentence."""

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
    REPLY,
    REQUEST,
    Events,
    NewItem,
    ProbeReply,
    ProbeRequest,
)

TIMEOUT_S = 900.0
MEMORY_BYTES = 2 * 2**30


class ProbeError(SanderlingError):
    """The child crashed, hung or raised; the message says which."""


@dataclass(frozen=True)
class ProbeAnswer:
    """What the bundle computed in the child."""

    reply: ProbeReply

    text_vectors: NDArray[np.float32]
    """The texts' vectors [q, t]."""

    new_item_vectors: NDArray[np.float32]
    """The item vectors of new items with these texts [q, d]."""

    placed_items: NDArray[np.float32]
    """The vectors [r, d] of items that were placed as new ones."""

    item_vectors: NDArray[np.float32]
    """The catalog's item vectors, from int8 rows [n, d]."""

    item_biases: NDArray[np.float32]
    """The catalog's item biases [n]."""


def probe_bundle(
    bundle: Path,
    previous: Path | None,
    texts: Sequence[str],
    new_items: Sequence[NewItem],
    catalog_texts: Sequence[str],
    histories: Sequence[Events],
    repeats: bool,
    timeout_s: float = TIMEOUT_S,
) -> ProbeAnswer:
    """Open the bundle in a child process and return what it computes.

    The child's address space is limited, on Linux, to 2 GiB and four times the bundles' bytes, as
    is that of an update's child. Raises `ProbeError` when the child crashes, fails, or takes
    longer than `timeout_s` seconds.
    """
    folders = [folder for folder in (bundle, previous) if folder is not None]
    memory = MEMORY_BYTES + 4 * sum(folder_bytes(folder) for folder in folders)
    request = ProbeRequest(
        str(bundle.resolve()),
        str(previous.resolve()) if previous else None,
        list(texts),
        list(new_items),
        list(catalog_texts),
        list(histories),
        repeats,
        memory,
    )
    with tempfile.TemporaryDirectory(prefix="sanderling-gate-") as name:
        folder = Path(name)
        (folder / REQUEST).write_bytes(msgspec.json.encode(request))
        _run_worker(folder, timeout_s)
        return _read_answer(folder)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files of a flat folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


def _run_worker(folder: Path, timeout_s: float) -> None:
    try:
        run_module(
            "sanderling_quantize.gate.probe_worker",
            str(folder),
            name="the engine",
            timeout_s=timeout_s,
        )
    except ChildFailedError as error:
        raise ProbeError(str(error)) from error


def _read_answer(folder: Path) -> ProbeAnswer:
    try:
        reply = msgspec.json.decode((folder / REPLY).read_bytes(), type=ProbeReply)
        if reply.error:
            raise ProbeError(reply.error)
        return ProbeAnswer(reply, **load_file(folder / ARRAYS))
    except (OSError, msgspec.MsgspecError, SafetensorError) as error:
        raise ProbeError(f"the engine's answer cannot be read: {error}") from error
