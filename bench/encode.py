"""How small and fast the device's encoder is, and how much of the language model's ranking is left, beside its peers.

Texts of 8 to 16 tokens one by one, one thread, tokens given; all graphs take turns, without the fusion that is slow,
so that ratios are fair and hold on a busy machine. model2vec and fastembed ran apart, timed from the text on. Rankings
are compared with the float model's on texts that no student has seen (`bench.encoding.corpus`), each text encoded
alone. `gate` names the tiers whose thresholds for texts a form would pass. The students are distilled once (`--make
TIER` makes one alone) and kept in the folder: about half an hour each on one core.

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
from bench.encoding.teacher import Teacher
from bench.ranking.data import folder as data_folder
from sanderling.ranking.quantization import quantize_rows
from sanderling.ranking.text_encoder import SLOW_FUSIONS
from sanderling_quantize.encoders.int8_search import feed, session
from sanderling_quantize.encoders.tokenization import Tokens, tokenize
from sanderling_quantize.gate import Thresholds, neighbours, spearman
from sanderling_quantize.similarity import cosine

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
    root, teacher = data_folder(options.data), Teacher.load()
    corpus = read(root, teacher.tokenizer.get_vocab())
    if options.make:
        ours.student(options.make, teacher, corpus, options.folder)
        return {"made": options.make}
    tokens = {
        name: tokenize(teacher.tokenizer, texts, ours.MAX_TOKENS)
        for name, texts in corpus.judged.items()
    }
    short = [at for at, one in enumerate(tokens[UNSEEN]) if SHORT <= len(one) <= LONG][:TIMED]
    paths = peers.graphs(
        teacher,
        tokenize(teacher.tokenizer, corpus.own[:128], ours.MAX_TOKENS),
        options.folder / "peers",
    )
    texts = [text for one in corpus.judged.values() for text in one]
    timed = [corpus.judged[UNSEEN][at] for at in short]
    apart = others.run(paths["float"], texts, timed, options.folder / "peers")
    paths["weight-only int8"] = options.folder / "peers" / "weight_only.onnx"
    encoders, sizes = _encoders(teacher, corpus, paths, options.folder)
    times = _times(encoders, [tokens[UNSEEN][at] for at in short])
    found = {name: _vectors(encode, tokens) for name, encode in encoders.items()}
    ends = np.cumsum([len(one) for one in corpus.judged.values()])[:-1]
    for name in ("model2vec", "fastembed"):
        found[name] = dict(zip(tokens, np.split(apart[name], ends), strict=True))
        times[name] = apart[f"{name}, us"].tolist()
    sizes["model2vec"] = int(apart["model2vec, bytes"])
    rows = _rows(found, sizes, times)
    print(_table(rows), file=sys.stderr)
    unknown = {name: _unknown(teacher, texts) for name, texts in corpus.judged.items()}
    return {"rows": rows, "unknown_tokens": unknown, "item_rows": _item_rows(root)}


def _encoders(
    teacher: Teacher, corpus: Corpus, paths: dict[str, Path], folder: Path
) -> tuple[dict[str, Encode], dict[str, int]]:
    for tier, bits in itertools.product(("base", "small", "nano"), (8, 7)):
        front = ours.forms(tier, bits, teacher, corpus, folder)
        paths[f"{tier}, {bits} bits"] = front[0].path
        for one in front:
            print(f"{tier}, {bits} bits: {one}", file=sys.stderr)
    encoders = {name: _graph(path, SLOW_FUSIONS) for name, path in paths.items()}
    encoders["float, every fusion"] = _graph(paths["float"], [])
    encoders["torch float"] = _torch(teacher)
    return encoders, {name: path.stat().st_size for name, path in paths.items()}


def _graph(path: Path, without: Sequence[str]) -> Encode:
    graph = session(path, without)
    names = {one.name for one in graph.get_inputs()}

    def encode(tokens: Tokens) -> NDArray[np.float32]:
        given = feed(tokens)
        if "token_type_ids" in names:
            given["token_type_ids"] = np.zeros_like(given["input_ids"])
        return peers.pooled(graph.run(None, given)[0])

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
        for one in tokens:
            start = time.perf_counter()
            encode(one)
            if turn:
                spent[name].append((time.perf_counter() - start) * 1e6)
    return spent


def _vectors(encode: Encode, tokens: dict[str, list[Tokens]]) -> dict[str, NDArray[np.float32]]:
    return {name: np.stack([encode(one) for one in texts]) for name, texts in tokens.items()}


def _rows(
    vectors: dict[str, dict[str, NDArray[np.float32]]],
    sizes: dict[str, int],
    times: dict[str, list[float]],
) -> list[Row]:
    exact = vectors["float"]
    rows = []
    for name, found in vectors.items():
        likeness = {
            texts: {
                "spearman": spearman(found[texts], exact[texts]),
                "top10": neighbours(found[texts], exact[texts]),
                "cosine": cosine(found[texts], exact[texts])
                if found[texts].shape == exact[texts].shape
                else 0.0,
            }
            for texts in exact
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
    seen, new = likeness["films, seen"], likeness[UNSEEN]
    passed = []
    for tier in ("base", "small", "nano"):
        least = Thresholds.of(tier)
        wanted = [
            seen["cosine"] >= least.cosine_seen,
            seen["spearman"] >= least.spearman_seen,
            seen["top10"] >= least.neighbours_seen,
            new["cosine"] >= least.cosine_unseen,
            new["spearman"] >= least.spearman_unseen,
            new["top10"] >= least.neighbours_unseen,
            size <= least.encoder_bytes,
        ]
        passed += [tier] if all(wanted) else []
    return passed


def _unknown(teacher: Teacher, texts: Sequence[str]) -> float:
    """Return the share of tokens that the vocabulary does not know."""
    found = np.concatenate(tokenize(teacher.tokenizer, texts, ours.MAX_TOKENS))
    return float(np.mean(found == teacher.tokenizer.unk_token_id))


def _item_rows(root: Path) -> dict[str, float]:
    """Return the share of the float items' 10 best left in int8 rows: users and factors of the gift shop's log."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    from bench.ranking.data import online_retail

    log = online_retail(root)
    counts = csr_matrix((np.ones(len(log), np.float32), (log.user, log.item)))
    counts.data = np.log1p(counts.data)
    found = {}
    for width in (64, 128):
        users, sizes, items = svds(counts, width, random_state=0)
        vectors, queries = (
            np.asarray(items.T * sizes, np.float32),
            np.asarray(users[:1000], np.float32),
        )
        rows, scale = quantize_rows(vectors)
        best = [
            np.argsort(-(queries @ matrix.T), 1)[:, :10]
            for matrix in (vectors, rows * scale[:, None])
        ]
        found[str(width)] = float(
            np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*best, strict=True)])
        )
    return found


def _table(rows: Sequence[Row]) -> str:
    lines = [
        f"{'':<28}{'MB':>7}{'p50 us':>9}{'p99 us':>9}{'x float':>9}  {'unseen':<15}{'seen':<15}gate"
    ]
    for row in sorted(rows, key=lambda one: -float(one["mb"])):
        pairs = [row["texts"][name] for name in (UNSEEN, "films, seen")]
        likeness = "".join(
            f"{one['spearman']:.4f}/{one['top10']:.3f}   "[:15].ljust(15) for one in pairs
        )
        gate = ", ".join(row["gate"]) or "-"
        lines.append(
            f"{row['encoder']:<28}{row['mb']:>7.2f}{row['p50_us']:>9.0f}{row['p99_us']:>9.0f}"
            f"{row['times_float']:>9.2f}  {likeness}{gate}"
        )
    return "\n".join(lines)
