"""Size and speed of the device's encoder, and how much of the language model's ranking is left.

Texts of 8 to 16 tokens one by one, one thread, tokens given; all graphs take turns, without the
fusion that is slow, so that ratios are fair and hold on a busy machine. model2vec and fastembed
run in a process of their own, timed with tokenization. Rankings are compared with the float
model's on texts that no student has seen (`bench.encoding.corpus`), each text encoded alone.
`gate` names the tiers whose thresholds for texts a form would pass. The students are distilled
once (`--make TIER` makes one alone) and kept in the folder: about half an hour each on one core.

    python -m bench encode [--data PATH] [--folder .bench-encode] [--make small|nano]
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.encoding import others, ours, peers
from bench.encoding.corpus import Corpus, read
from bench.encoding.teacher import load_teacher
from bench.ranking.data import folder as data_folder
from sanderling.ranking.quantization import quantize_rows
from sanderling.ranking.text_encoder import SLOW_FUSIONS
from sanderling_quantize.encoders.int8_search import feed, session
from sanderling_quantize.encoders.teacher import Teacher
from sanderling_quantize.encoders.tokenization import Tokens
from sanderling_quantize.gate import Thresholds
from sanderling_quantize.similarity import cosine, neighbour_overlap, spearman

ROUNDS, TIMED = 12, 40
SHORT, LONG = 8, 16
UNSEEN = "films, unseen"

Encode = Callable[[Tokens], NDArray[np.float32]]
Row = dict[str, Any]


def run(arguments: list[str]) -> dict[str, Any]:
    """Make what is missing, and print the table of ours and of the peers."""
    parser = argparse.ArgumentParser("bench encode")
    parser.add_argument("--data")
    parser.add_argument("--folder", type=Path, default=Path(".bench-encode"))
    parser.add_argument("--make", choices=("small", "nano"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    root = data_folder(options.data)
    teacher = load_teacher()
    corpus = read(root, teacher.tokenizer.get_vocab())
    if options.make:
        ours.load_student(options.make, teacher, corpus, options.folder)
        return {"made": options.make}

    tokens = {name: teacher.tokenize(texts) for name, texts in corpus.evaluation.items()}
    timed = [row for row, text in enumerate(tokens[UNSEEN]) if SHORT <= len(text) <= LONG][:TIMED]
    calibration = teacher.tokenize(corpus.own[:128])
    paths = peers.graphs(teacher, calibration, options.folder / "peers")
    separate = others.run(
        paths["float"],
        [text for texts in corpus.evaluation.values() for text in texts],
        [corpus.evaluation[UNSEEN][row] for row in timed],
        options.folder / "peers",
    )
    paths["weight-only int8"] = options.folder / "peers" / "weight_only.onnx"

    encoders, sizes = _encoders(teacher, corpus, paths, options.folder)
    times = _times(encoders, [tokens[UNSEEN][row] for row in timed])
    vectors = {name: _vectors(encode, tokens) for name, encode in encoders.items()}
    ends = np.cumsum([len(texts) for texts in corpus.evaluation.values()])[:-1]
    for name in ("model2vec", "fastembed"):
        vectors[name] = dict(zip(tokens, np.split(separate[name], ends), strict=True))
        times[name] = separate[f"{name}, us"].tolist()
    sizes["model2vec"] = int(separate["model2vec, bytes"])

    rows = _rows(vectors, sizes, times)
    print(_table(rows), file=sys.stderr)
    unknown = {name: _unknown(teacher, texts) for name, texts in corpus.evaluation.items()}
    return {"rows": rows, "unknown_tokens": unknown, "item_rows": _item_rows(root)}


def _encoders(
    teacher: Teacher, corpus: Corpus, paths: dict[str, Path], folder: Path
) -> tuple[dict[str, Encode], dict[str, int]]:
    """Return each encoder and each graph's bytes, by name; ours are added to `paths`."""
    for tier, bits in itertools.product(("base", "small", "nano"), (8, 7)):
        front = ours.int8_forms(tier, bits, teacher, corpus, folder)
        paths[f"{tier}, {bits} bits"] = front[0].path
        for form in front:
            print(f"{tier}, {bits} bits: {form}", file=sys.stderr)
    encoders = {name: _graph(path, SLOW_FUSIONS) for name, path in paths.items()}
    encoders["float, every fusion"] = _graph(paths["float"], [])
    encoders["torch float"] = _torch(teacher)
    return encoders, {name: path.stat().st_size for name, path in paths.items()}


def _graph(path: Path, without: Sequence[str]) -> Encode:
    graph = session(path, without)
    names = {node.name for node in graph.get_inputs()}

    def encode(tokens: Tokens) -> NDArray[np.float32]:
        inputs = feed(tokens)
        if "token_type_ids" in names:
            inputs["token_type_ids"] = np.zeros_like(inputs["input_ids"])
        return peers.pooled(graph.run(None, inputs)[0])

    return encode


def _torch(teacher: Teacher) -> Encode:
    model = peers.Pooled(teacher.model).eval()

    def encode(tokens: Tokens) -> NDArray[np.float32]:
        with torch.inference_mode():
            ids = torch.from_numpy(tokens[None])
            return np.asarray(model(ids, torch.ones_like(ids))[0].numpy())

    return encode


def _times(encoders: dict[str, Encode], tokens: Sequence[Tokens]) -> dict[str, list[float]]:
    """Return each encoder's microseconds, text by text; they take turns."""
    spent: dict[str, list[float]] = {name: [] for name in encoders}
    for turn, (name, encode) in itertools.product(range(ROUNDS + 1), encoders.items()):
        for text in tokens:
            start = time.perf_counter()
            encode(text)
            if turn:
                spent[name].append((time.perf_counter() - start) * 1e6)
    return spent


def _vectors(encode: Encode, tokens: dict[str, list[Tokens]]) -> dict[str, NDArray[np.float32]]:
    return {name: np.stack([encode(text) for text in texts]) for name, texts in tokens.items()}


def _rows(
    vectors: dict[str, dict[str, NDArray[np.float32]]],
    sizes: dict[str, int],
    times: dict[str, list[float]],
) -> list[Row]:
    exact = vectors["float"]
    rows = []
    for name, by_set in vectors.items():
        likeness = {}
        for texts, expected in exact.items():
            same_width = by_set[texts].shape == expected.shape
            likeness[texts] = {
                "spearman": spearman(by_set[texts], expected),
                "top10": neighbour_overlap(by_set[texts], expected),
                "cosine": cosine(by_set[texts], expected) if same_width else 0.0,
            }
        rows.append(
            {
                "encoder": name,
                "mb": sizes.get(name, sizes["float"]) / 1e6,
                "p50_us": float(np.median(times[name])),
                "p99_us": float(np.percentile(times[name], 99)),
                "times_float": float(np.median(times["float"]) / np.median(times[name])),
                "gate": _gate(likeness, sizes.get(name, sizes["float"])),
                "texts": likeness,
            }
        )
    return rows


def _gate(likeness: dict[str, dict[str, float]], size: int) -> list[str]:
    """Return the tiers whose thresholds of texts and size are met, by the films."""
    seen = likeness["films, seen"]
    new = likeness[UNSEEN]
    passed = []
    for tier in ("base", "small", "nano"):
        limits = Thresholds.of(tier)
        reached = [
            seen["cosine"] >= limits.cosine_seen,
            seen["spearman"] >= limits.spearman_seen,
            seen["top10"] >= limits.neighbours_seen,
            new["cosine"] >= limits.cosine_unseen,
            new["spearman"] >= limits.spearman_unseen,
            new["top10"] >= limits.neighbours_unseen,
            size <= limits.encoder_bytes,
        ]
        passed += [tier] if all(reached) else []
    return passed


def _unknown(teacher: Teacher, texts: Sequence[str]) -> float:
    """Return the share of tokens that the vocabulary does not know."""
    ids = np.concatenate(teacher.tokenize(texts))
    return float(np.mean(ids == teacher.tokenizer.unk_token_id))


def _item_rows(root: Path) -> dict[str, float]:
    """Return the share of the float items' 10 best that int8 rows keep, by width.

    Items and users are the factors of the gift shop's log.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    from bench.ranking.data import online_retail

    log = online_retail(root)
    counts = csr_matrix((np.ones(len(log), np.float32), (log.user, log.item)))
    counts.data = np.log1p(counts.data)
    shares = {}
    for width in (64, 128):
        users, sizes, items = svds(counts, width, random_state=0)
        vectors = np.asarray(items.T * sizes, np.float32)
        queries = np.asarray(users[:1000], np.float32)
        rows, scale = quantize_rows(vectors)
        exact, int8 = (
            np.argsort(-(queries @ matrix.T), 1)[:, :10]
            for matrix in (vectors, rows * scale[:, None])
        )
        common = [len(set(a) & set(b)) / 10 for a, b in zip(exact, int8, strict=True)]
        shares[str(width)] = float(np.mean(common))
    return shares


def _table(rows: Sequence[Row]) -> str:
    lines = [
        f"{'':<28}{'MB':>7}{'p50 us':>9}{'p99 us':>9}{'x float':>9}  {'unseen':<15}{'seen':<15}gate"
    ]
    for row in sorted(rows, key=lambda row: -float(row["mb"])):
        pairs = [row["texts"][name] for name in (UNSEEN, "films, seen")]
        likeness = "".join(
            f"{pair['spearman']:.4f}/{pair['top10']:.3f}   "[:15].ljust(15) for pair in pairs
        )
        gate = ", ".join(row["gate"]) or "-"
        lines.append(
            f"{row['encoder']:<28}{row['mb']:>7.2f}{row['p50_us']:>9.0f}{row['p99_us']:>9.0f}"
            f"{row['times_float']:>9.2f}  {likeness}{gate}"
        )
    return "\n".join(lines)
