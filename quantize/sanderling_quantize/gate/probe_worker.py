"""The gate's child process: `python -m sanderling_quantize.gate.probe_worker FOLDER`.

It opens the bundle with the real engine, under a limit on its address space, and leaves reply.json
and arrays.safetensors in the folder of the request. It measures a device, so it imports nothing of
the lab: no torch, onnx or pyarrow.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sanderling import Engine
from sanderling.bundle.reader import Bundle
from sanderling.ranking.added_items import vectors_of_new
from sanderling.ranking.golden_check import faults
from sanderling.ranking.scorer import Scorer
from sanderling_quantize.gate.probe_protocol import (
    ARRAYS,
    MAX_DEPTH,
    REPLY,
    REQUEST,
    SLATE,
    ProbeReply,
    ProbeRequest,
)
from sanderling_quantize.readability import measure

ROUNDS = 200

Arrays = dict[str, NDArray[Any]]


def main() -> None:
    """Answer the request in the folder that the command line names."""
    folder = Path(sys.argv[1])
    request = msgspec.json.decode((folder / REQUEST).read_bytes(), type=ProbeRequest)
    _limit_memory(request.memory_bytes)
    try:
        reply, arrays = _answer(request, folder / "state")
        save_file(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / ARRAYS
        )
    except BaseException as error:  # native libraries raise panics that are no `Exception`
        reply = ProbeReply(error=f"{type(error).__name__}: {error}")
    (folder / REPLY).write_bytes(msgspec.json.encode(reply))


def _limit_memory(memory_bytes: int) -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _answer(request: ProbeRequest, state: Path) -> tuple[ProbeReply, Arrays]:
    folder = Path(request.bundle)
    bundle = Bundle.open(folder, verify=True)
    with Engine.open(folder, state=state) as engine:
        scorer = Scorer(bundle)
        vectors = _text_vectors(scorer, request.texts)
        tokenizer, _ = scorer.encoder.load()
        readability = measure(tokenizer, request.catalog_texts)
        rankings = _rankings(engine, bundle.manifest.exploration.pool, request)

    encode_ms: list[float] = []
    recommend_ms: list[float] = []
    if request.previous:
        folders = [folder, Path(request.previous)]
        encode_ms, recommend_ms = _latencies(folders, request.texts)

    reply = ProbeReply(
        readability=readability,
        golden_faults=faults(bundle),
        ids=list(bundle.ids()),
        rankings=rankings,
        epsilon=bundle.manifest.exploration.epsilon,
        encode_ms=encode_ms,
        recommend_ms=recommend_ms,
    )
    return reply, {
        "text_vectors": vectors,
        "placed_items": _placed(scorer, request),
        "new_item_vectors": vectors @ bundle.policy["item.project"].T,
        "item_vectors": bundle.items.rows * bundle.items.scale[:, None],
        "item_biases": bundle.items.bias,
    }


def _text_vectors(scorer: Scorer, texts: Sequence[str]) -> NDArray[np.float32]:
    empty = np.empty((0, scorer.bundle.manifest.sizes.text), np.float32)
    return np.concatenate([empty, *(scorer.encoder.encode_item(text)[None] for text in texts)])


def _placed(scorer: Scorer, request: ProbeRequest) -> NDArray[np.float32]:
    """Return the vectors [r, d] of new items with features."""
    found = scorer.bundle.item_features
    if not request.new_items or found is None:
        return np.empty((0, scorer.bundle.manifest.sizes.dim), np.float32)
    # The texts have the attributes' words already.
    bundle = replace(scorer.bundle, item_features=found.without_texts())
    return vectors_of_new(bundle, scorer.encoder, request.new_items)


def _rankings(engine: Engine, pool: int, request: ProbeRequest) -> list[list[str]]:
    depth = min(max(pool, SLATE), MAX_DEPTH)
    rankings = []
    for number, history in enumerate(request.histories):
        user = str(number)
        for item, kind in history:
            engine.observe(user, item, kind)
        exclude = [] if request.repeats else [item for item, _ in history]
        slate = engine.recommend(user, depth, exclude=exclude, greedy=True)
        rankings.append([item.id for item in slate])
    return rankings


def _latencies(folders: Sequence[Path], texts: Sequence[str]) -> tuple[list[float], list[float]]:
    """Return each bundle's median milliseconds for an uncached text and for a new user's slate."""
    encoders = [Scorer(Bundle.open(folder)).encoder.encode for folder in folders]
    encode = _time_in_turns(encoders, list(dict.fromkeys(texts))[:ROUNDS])
    with ExitStack() as stack:
        engines = [stack.enter_context(Engine.open(folder)) for folder in folders]
        recommend = _time_in_turns([engine.recommend for engine in engines], ["nobody"] * ROUNDS)
    return encode, recommend


def _time_in_turns(
    functions: Sequence[Callable[[str], Any]], arguments: Sequence[str]
) -> list[float]:
    """Return each function's median milliseconds.

    They take turns, so that other load on the machine affects all alike.
    """
    for function in functions:
        function("the first call loads and compiles, and is not measured")

    times: list[list[float]] = [[] for _ in functions]
    order = list(range(len(functions)))
    for argument in arguments:
        order.reverse()  # the second run has warm caches
        for index in order:
            start = time.perf_counter()
            functions[index](argument)
            times[index].append(1e3 * (time.perf_counter() - start))
    return [float(np.median(row)) for row in times] if arguments else []


if __name__ == "__main__":
    main()
