"""The gate's child process: a device that answers questions. Run as `python -m sanderling_quantize.gate.probe_worker FOLDER`.

It opens the bundle with the real engine, under a limit on its address space, and leaves words.json and
arrays.safetensors in the folder of the question. Refuses to judge, and to load anything of the lab.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sanderling import Engine
from sanderling.bundle.reader import Bundle
from sanderling.ranking.golden_check import faults
from sanderling.ranking.scorer import Scorer
from sanderling_quantize.gate.probe_protocol import (
    ARRAYS,
    DEEPEST,
    QUESTION,
    SLATE,
    WORDS,
    ProbeReply,
    Question,
)

TURNS = 200

Arrays = dict[str, NDArray[Any]]


def main() -> None:
    """Answer the question in the folder that the command line names."""
    folder = Path(sys.argv[1])
    question = msgspec.json.decode((folder / QUESTION).read_bytes(), type=Question)
    _limit(question.memory_bytes)
    try:
        words, arrays = _answer(question, folder / "state")
        save_file(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / ARRAYS
        )
    except BaseException as error:  # native libraries raise panics that are no `Exception`
        words = ProbeReply(fault=f"{type(error).__name__}: {error}")
    (folder / WORDS).write_bytes(msgspec.json.encode(words))


def _limit(memory_bytes: int) -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _answer(question: Question, state: Path) -> tuple[ProbeReply, Arrays]:
    folder = Path(question.bundle)
    with Engine.open(folder, state=state, verify=True) as engine:
        bundle = Bundle.open(folder)
        vectors = _vectors(Scorer(bundle), question.texts)
        rankings = _rankings(engine, bundle.manifest.exploration.pool, question)
    encode, recommend = (
        _latencies([folder, Path(question.previous)], question.texts)
        if question.previous
        else ([], [])
    )
    words = ProbeReply(
        golden=faults(bundle),
        ids=list(bundle.ids()),
        rankings=rankings,
        epsilon=bundle.manifest.exploration.epsilon,
        encode=encode,
        recommend=recommend,
    )
    return words, {
        "texts": vectors,
        "new": vectors @ bundle.policy["item.project"].T,
        "items": bundle.items.rows * bundle.items.scale[:, None],
        "biases": bundle.items.bias,
    }


def _vectors(scorer: Scorer, texts: Sequence[str]) -> NDArray[np.float32]:
    empty = np.empty((0, scorer.bundle.manifest.sizes.text), np.float32)
    return np.concatenate([empty, *(scorer.encoder.encode(text)[None] for text in texts)])


def _rankings(engine: Engine, pool: int, question: Question) -> list[list[str]]:
    depth, found = min(max(pool, SLATE), DEEPEST), []
    for user, history in enumerate(question.histories):
        for item, kind in history:
            engine.observe(str(user), item, kind)
        exclude = [] if question.repeats else [item for item, _ in history]
        found.append(
            [item.id for item in engine.recommend(str(user), depth, exclude=exclude, greedy=True)]
        )
    return found


def _latencies(folders: Sequence[Path], texts: Sequence[str]) -> tuple[list[float], list[float]]:
    """Return the median milliseconds of each bundle for a text that is not cached, and for an unknown user's slate."""
    encoders = [Scorer(Bundle.open(folder)).encoder.encode for folder in folders]
    encode = _turns(encoders, list(dict.fromkeys(texts))[:TURNS])
    with ExitStack() as stack:
        engines = [stack.enter_context(Engine.open(folder)) for folder in folders]
        recommend = _turns([engine.recommend for engine in engines], ["nobody"] * TURNS)
    return encode, recommend


def _turns(contenders: Sequence[Callable[[str], Any]], arguments: Sequence[str]) -> list[float]:
    """Let the contenders take turns, so that what else the machine does meets all of them alike."""
    for contender in contenders:
        contender("what is loaded or compiled at the first call is not measured")
    took: list[list[float]] = [[] for _ in contenders]
    order = list(range(len(contenders)))
    for argument in arguments:
        order.reverse()
        for at in order:
            start = time.perf_counter()
            contenders[at](argument)
            took[at].append(1e3 * (time.perf_counter() - start))
    return [float(np.median(times)) for times in took] if arguments else []


if __name__ == "__main__":
    main()
