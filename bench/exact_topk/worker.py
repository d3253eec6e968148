"""One contender of `bench topk`: answers each line on stdin with a round of times in µs.

    worker.py CONTENDER PROBLEM.npz K CORE

Problems hold int8 rows [n, d] and queries float32 [q, d] of whole numbers, so that contenders for
int8 queries answer the same question. The first line of output says whether the first answers were
those of float64.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Search = Callable[[int], Any]  # index of the query -> rows

CHECKED_QUERIES = 8


def main() -> None:
    """Serve rounds until stdin ends."""
    name, path, k, core = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    os.sched_setaffinity(0, {core})
    with np.load(path) as problem:
        rows, queries, excluded = problem["rows"], problem["queries"], problem["excluded"]
    search = CONTENDERS[name](rows, queries, k, excluded)
    if name == "floor":
        exact = True
    else:
        left_out = excluded if name == EXCLUDING else np.empty(0, np.int64)
        exact = all(
            _is_exact(search(i), rows, queries[i], k, left_out) for i in range(CHECKED_QUERIES)
        )
    print(json.dumps({"exact": exact}), flush=True)
    for _ in sys.stdin:
        spent = []
        for i in range(len(queries)):
            start = time.perf_counter()
            search(i)
            spent.append((time.perf_counter() - start) * 1e6)
        print(json.dumps(spent), flush=True)


def _is_exact(
    result: Any,
    rows: NDArray[np.int8],
    query: NDArray[np.float32],
    k: int,
    excluded: NDArray[np.int64],
) -> bool:
    """Return whether the rows have the k best scores; equal scores are interchangeable."""
    scores = rows.astype(np.float64) @ query.astype(np.float64)
    scores[excluded] = -np.inf
    best = np.sort(scores)[::-1][:k]
    return np.array_equal(np.sort(scores[np.asarray(result).reshape(-1)[:k]])[::-1], best)


def floor(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """Read every byte once."""
    words = rows.reshape(-1)[: rows.size // 8 * 8].view(np.int64)
    return lambda i: words.max()


def _ours(rows: Any, queries: Any, k: int, bias: Any, excluded: Any, source: str | None) -> Search:
    from sanderling.ranking.index import Int8Index

    index = Int8Index(rows, np.ones(len(rows), np.float32), bias, source)
    return lambda i: index.top(queries[i], k, excluded).rows


def sanderling(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """Ours: the kernels that were built, as the engine calls them."""
    return _ours(rows, queries, k, np.zeros(len(rows), np.float32), None, "compiled")


def sanderling_numba(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """Ours, compiled by numba where it runs."""
    return _ours(rows, queries, k, np.zeros(len(rows), np.float32), None, "numba")


def sanderling_numpy(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """Ours without any compiled code."""
    return _ours(rows, queries, k, np.zeros(len(rows), np.float32), None, "numpy")


def sanderling_avx2(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """Ours as on a processor without AVX-512."""
    from sanderling.kernels import cpu

    cpu.kinds = lambda: ["avx2"]
    return sanderling(rows, queries, k, excluded)


def sanderling_excluding(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """Ours with a tenth of the rows excluded, and biases that change no order."""
    return _ours(rows, queries, k, np.full(len(rows), 0.0, np.float32), excluded, "compiled")


def numpy(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """The obvious code: a float32 matrix-vector product and argpartition."""
    vectors = rows.astype(np.float32)
    return lambda i: np.argpartition(vectors @ queries[i], -k)[-k:]


def numpy_int8(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """The same from int8 rows, converted to float32 for each query."""
    return lambda i: np.argpartition(rows.astype(np.float32) @ queries[i], -k)[-k:]


def _faiss(index: Any, rows: Any, queries: Any, k: int) -> Search:
    import faiss

    faiss.omp_set_num_threads(1)
    vectors = rows.astype(np.float32)
    index.train(vectors)
    index.add(vectors)
    return lambda i: index.search(queries[i : i + 1], k)[1]


def faiss_flat(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """FAISS IndexFlatIP, float32."""
    import faiss

    return _faiss(faiss.IndexFlatIP(rows.shape[1]), rows, queries, k)


def faiss_sq8(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """FAISS scalar quantizer, 8 bits and a range for each dimension: it quantizes the rows."""
    import faiss

    kind = faiss.ScalarQuantizer.QT_8bit
    return _faiss(
        faiss.IndexScalarQuantizer(rows.shape[1], kind, faiss.METRIC_INNER_PRODUCT),
        rows,
        queries,
        k,
    )


def faiss_direct(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """FAISS scalar quantizer on the bytes themselves."""
    import faiss

    kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
    return _faiss(
        faiss.IndexScalarQuantizer(rows.shape[1], kind, faiss.METRIC_INNER_PRODUCT),
        rows,
        queries,
        k,
    )


def scann(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """ScaNN brute force on its int8 rows."""
    from scann import scann_ops_pybind

    vectors = rows.astype(np.float32)
    searcher = (
        scann_ops_pybind.builder(vectors, k, "dot_product").score_brute_force(quantize=True).build()
    )
    return lambda i: searcher.search(queries[i])[0]


def scann_float(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """ScaNN brute force on float32."""
    from scann import scann_ops_pybind

    searcher = (
        scann_ops_pybind.builder(rows.astype(np.float32), k, "dot_product")
        .score_brute_force()
        .build()
    )
    return lambda i: searcher.search(queries[i])[0]


def numkong(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """NumKong's int8 dot products, then argpartition."""
    import numkong as nk

    short = queries.astype(np.int8)

    def search(i: int) -> Any:
        scores = np.asarray(nk.cdist(short[i : i + 1], rows, metric="dot")).reshape(-1)
        return np.argpartition(scores, -k)[-k:]

    return search


def usearch(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """USearch's exact search on int8."""
    from usearch.index import MetricKind
    from usearch.index import search as find

    short = queries.astype(np.int8)
    return lambda i: find(rows, short[i], k, MetricKind.IP, exact=True, threads=1).keys


def hnswlib(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """The hnswlib package's brute force, float32."""
    from hnswlib import BFIndex

    index = BFIndex(space="ip", dim=rows.shape[1])
    index.init_index(max_elements=len(rows))
    index.add_items(rows.astype(np.float32))
    return lambda i: index.knn_query(queries[i], k=k)[0]


def torch_float(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """PyTorch, float32 mv and topk."""
    import torch

    torch.set_num_threads(1)
    vectors = torch.from_numpy(rows.astype(np.float32))
    tensors = torch.from_numpy(queries)
    return lambda i: torch.topk(vectors @ tensors[i], k).indices.numpy()


def ort_integer(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """ONNX Runtime, MatMulInteger of a uint8 query and int8 rows, then TopK."""
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ascontiguousarray(rows.T), "rows")
    zero = numpy_helper.from_array(np.array(128, np.uint8), "zero")
    count = numpy_helper.from_array(np.array([k], np.int64), "k")
    nodes = [
        helper.make_node("MatMulInteger", ["query", "rows", "zero"], ["dots"]),
        helper.make_node("Cast", ["dots"], ["scores"], to=TensorProto.FLOAT),
        helper.make_node("TopK", ["scores", "k"], ["best", "indices"], axis=1),
    ]
    session = _session(nodes, TensorProto.UINT8, rows.shape[1], [weights, zero, count])
    short = (queries + 128).astype(np.uint8)
    return lambda i: session.run(["indices"], {"query": short[i : i + 1]})[0]


def ort_nbits(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """ONNX Runtime, MatMulNBits with 8 bits and int8 arithmetic, then TopK."""
    from onnx import TensorProto, helper, numpy_helper

    n, d = rows.shape
    packed = (rows.astype(np.int16) + 128).astype(np.uint8).reshape(n, -1, 32)
    parts = [
        numpy_helper.from_array(packed, "rows"),
        numpy_helper.from_array(np.ones(n * packed.shape[1], np.float32), "ones"),
        numpy_helper.from_array(np.array([k], np.int64), "k"),
    ]
    options = {
        "K": d,
        "N": n,
        "bits": 8,
        "block_size": 32,
        "accuracy_level": 4,
        "domain": "com.microsoft",
    }
    nodes = [
        helper.make_node("MatMulNBits", ["query", "rows", "ones"], ["scores"], **options),
        helper.make_node("TopK", ["scores", "k"], ["best", "indices"], axis=1),
    ]
    session = _session(nodes, TensorProto.FLOAT, d, parts)
    return lambda i: session.run(["indices"], {"query": queries[i : i + 1]})[0]


def _session(nodes: Any, kind: int, d: int, weights: Any) -> Any:
    import onnxruntime
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes,
        "search",
        [helper.make_tensor_value_info("query", kind, [1, d])],
        [helper.make_tensor_value_info("indices", TensorProto.INT64, None)],
        weights,
    )
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def faiss_hnsw(rows: Any, queries: Any, k: int, excluded: Any) -> Search:
    """FAISS HNSW, for context: not exact."""
    import faiss

    index = faiss.IndexHNSWFlat(rows.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efSearch = max(64, k)
    return _faiss(index, rows, queries, k)


EXCLUDING = "sanderling, bias and a tenth excluded"
CONTENDERS: dict[str, Callable[..., Search]] = {
    "floor": floor,
    "sanderling": sanderling,
    "sanderling, numba": sanderling_numba,
    "sanderling, AVX2": sanderling_avx2,
    "sanderling, numpy": sanderling_numpy,
    EXCLUDING: sanderling_excluding,
    "numpy float32": numpy,
    "numpy int8 to float32": numpy_int8,
    "FAISS Flat": faiss_flat,
    "FAISS SQ8": faiss_sq8,
    "FAISS SQ8 direct signed": faiss_direct,
    "ScaNN int8": scann,
    "ScaNN float32": scann_float,
    "NumKong int8": numkong,
    "USearch exact int8": usearch,
    "hnswlib brute force": hnswlib,
    "torch float32": torch_float,
    "ONNX Runtime MatMulInteger": ort_integer,
    "ONNX Runtime MatMulNBits": ort_nbits,
    "FAISS HNSW": faiss_hnsw,
}

if __name__ == "__main__":
    main()
