"""Text -> vector, by the bundle's own int8 encoder. The only room that knows onnxruntime and tokenizers.

Texts are encoded one by one: dynamic int8 depends on what else is in a batch, and golden vectors were made one by one.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.errors import BundleError

MAX_CHARACTERS = 8192
CACHE_ENTRIES = 1024
SLOW_FUSIONS = [
    "SkipLayerNormFusion"
]  # onnxruntime 1.32 on x86: the fused node takes twice what its parts take


class TextEncoder:
    """Loads on the first text, so that an engine which never reads text never pays for it. Thread-safe.

    Texts are encoded side by side: who encodes many, such as new items, keeps nobody waiting.
    """

    def __init__(self, folder: Path, dimension: int, max_tokens: int) -> None:
        self._folder, self._dimension, self._max_tokens = folder, dimension, max_tokens
        self._loading = Lock()
        self._keeping = Lock()
        self._parts: tuple[Any, Any] | None = None
        self._cache: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()

    def encode(self, text: str) -> NDArray[np.float32]:
        """Return the unit vector float32 [t] of a text; any string is allowed, the empty one too.

        The last `CACHE_ENTRIES` are kept by the texts' hashes. Raises `BundleError` when the encoder cannot be loaded
        or gives something else than t finite numbers, and `ImportError` when the extra `text` is not installed.
        """
        clean = text[:MAX_CHARACTERS].encode("utf-8", "replace")
        key = hashlib.blake2b(clean, digest_size=16).digest()
        with self._keeping:
            cached = self._cache.get(key)
            if cached is not None:
                self._cache.move_to_end(key)
                return cached
        vector = self._run(clean.decode("utf-8"))
        with self._keeping:
            self._cache[key] = vector
            if len(self._cache) > CACHE_ENTRIES:
                self._cache.popitem(last=False)
        return vector

    def _run(self, text: str) -> NDArray[np.float32]:
        tokenizer, session = self._loaded()
        encoding = tokenizer.encode(text)
        feed = {
            "input_ids": np.array([encoding.ids], np.int64),
            "attention_mask": np.array([encoding.attention_mask], np.int64),
        }
        vector = session.run(None, feed)[0]
        if vector.shape != (1, self._dimension) or not np.isfinite(vector).all():
            raise BundleError(
                f"encoder.onnx: expected {self._dimension} finite numbers for a text, found shape {vector.shape}"
            )
        return np.asarray(vector[0], np.float32)

    def _loaded(self) -> tuple[Any, Any]:
        with self._loading:
            self._parts = self._parts or self._load()
            return self._parts

    def _load(self) -> tuple[Any, Any]:
        try:
            import onnxruntime
            import tokenizers
        except ImportError as error:
            raise ImportError(
                "encoding text needs the extra `text`: pip install 'sanderling[text]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(self._folder / "tokenizer.json"))
            session = onnxruntime.InferenceSession(
                str(self._folder / "encoder.onnx"),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=SLOW_FUSIONS,
            )
        except Exception as error:
            raise BundleError(f"encoder of {self._folder} does not load: {error}") from error
        tokenizer.no_padding()
        tokenizer.enable_truncation(self._max_tokens)
        return tokenizer, session
