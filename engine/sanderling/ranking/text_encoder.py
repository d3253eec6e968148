"""Text -> vector by the bundle's int8 encoder; the engine's only module with onnxruntime.

Texts are encoded one by one: dynamic int8 depends on what else is in a batch, and golden vectors
were made one by one.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.manifest import Prefixes
from sanderling.errors import BundleError
from sanderling.ranking.text_domain import DomainMonitor, TextDomain, unknown_share
from sanderling.runtime.native import native_errors

MAX_CHARACTERS = 8192
NO_PREFIXES = Prefixes()
CACHE_ENTRIES = 1024

# With onnxruntime 1.32 on x86 the fused node takes twice as long as its parts.
SLOW_FUSIONS = ["SkipLayerNormFusion"]


def import_onnxruntime() -> Any:
    """Return the module, which reports nothing to its makers; raise `ImportError` without it."""
    # It reads the variable when it is loaded.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


class EncodedText(NamedTuple):
    """What the encoder made of a text."""

    vector: NDArray[np.float32]
    """Unit vector float32 [t]."""

    unknown: float
    """Share of the text's tokens that the vocabulary lacks."""


class TextEncoder:
    """The encoder of a bundle. Thread-safe; concurrent calls do not block each other.

    It loads on the first text, so that an engine which never reads text never pays for it. `cache`
    maps the hashes of the last texts to their vectors: hashes, so that its memory is bounded
    however long texts are. `monitor` counts the texts, and those out of the bundle's domain.
    """

    def __init__(
        self,
        folder: Path,
        dimension: int,
        max_tokens: int,
        prefixes: Prefixes = NO_PREFIXES,
        domain: TextDomain | None = None,
    ) -> None:
        self.cache: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self.monitor = DomainMonitor(domain)
        self._folder = folder
        self._dimension = dimension
        self._max_tokens = max_tokens
        self._prefixes = prefixes
        self._load_lock = Lock()
        self._cache_lock = Lock()
        self._loaded: tuple[Any, Any] | None = None

    def encode(
        self, text: str, *, keep: bool = True, is_counted: bool = True
    ) -> NDArray[np.float32]:
        """Return the unit vector float32 [t] of a context or a search; any string is allowed, the
        empty one too.

        Characters beyond `MAX_CHARACTERS` are ignored. The vector is cached if `keep` says so, and
        the text counted by `monitor` if `is_counted` does.
        Raises `BundleError` when the encoder cannot be loaded, fails, panics, or does not return t
        finite numbers, and `ImportError` when the extra `text` is not installed.
        """
        text = self._prefixes.query + text[:MAX_CHARACTERS]
        return self._encode(text, keep, is_item=False, is_counted=is_counted)

    def encode_item(self, text: str, *, keep: bool = True) -> NDArray[np.float32]:
        """Return the unit vector float32 [t] of an item's text; otherwise as `encode`."""
        return self._encode(self._prefixes.item + text[:MAX_CHARACTERS], keep, is_item=True)

    def encode_item_text(self, text: str) -> EncodedText:
        """Return what an item's text becomes, neither cached nor counted; otherwise as `encode`."""
        return self.encode_uncached(_clean(self._prefixes.item + text[:MAX_CHARACTERS]))

    def _encode(
        self, text: str, keep: bool, *, is_item: bool, is_counted: bool = True
    ) -> NDArray[np.float32]:
        clean = _clean(text)
        key = hashlib.blake2b(clean.encode(), digest_size=16).digest()
        with self._cache_lock:
            cached = self.cache.get(key)
            if cached is not None:
                self.cache.move_to_end(key)
                return cached

        # Outside the lock: another thread may encode the same text meanwhile, to the same vector.
        vector, unknown = self.encode_uncached(clean)
        if is_counted:
            self.monitor.count(vector, unknown, is_item=is_item)
        if not keep:
            return vector
        with self._cache_lock:
            self.cache[key] = vector
            if len(self.cache) > CACHE_ENTRIES:
                self.cache.popitem(last=False)
        return vector

    def encode_uncached(self, text: str) -> EncodedText:
        """Return what valid text with its prefix becomes, without looking into the cache."""
        tokenizer, session = self.load()
        with native_errors("a text cannot be encoded"):
            encoding = tokenizer.encode(text)
            feed = {
                "input_ids": np.array([encoding.ids], np.int64),
                "attention_mask": np.array([encoding.attention_mask], np.int64),
            }
            vector = np.asarray(session.run(None, feed)[0])
            unknown = unknown_share(tokenizer, encoding)
        if vector.shape != (1, self._dimension) or not np.isfinite(vector).all():
            raise BundleError(
                f"encoder.onnx: expected {self._dimension} finite numbers for a text, "
                f"found shape {vector.shape}"
            )
        return EncodedText(np.asarray(vector[0], np.float32), unknown)

    def load(self) -> tuple[Any, Any]:
        """Return the tokenizer and the onnxruntime session, loaded on the first call."""
        with self._load_lock:
            self._loaded = self._loaded or self._read()
            return self._loaded

    def _read(self) -> tuple[Any, Any]:
        try:
            onnxruntime = import_onnxruntime()
            import tokenizers
        except ImportError as error:
            raise ImportError(
                "encoding text needs the extra `text`: pip install 'sanderling[text]'"
            ) from error
        # One thread and no arena: an app's own work comes first, and the arena would keep what the
        # longest text needed.
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False
        with native_errors(f"encoder of {self._folder} does not load"):
            tokenizer = tokenizers.Tokenizer.from_file(str(self._folder / "tokenizer.json"))
            tokenizer.no_padding()
            tokenizer.enable_truncation(self._max_tokens)
            session = onnxruntime.InferenceSession(
                str(self._folder / "encoder.onnx"),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=SLOW_FUSIONS,
            )
        return tokenizer, session


def _clean(text: str) -> str:
    """Return a text that UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
