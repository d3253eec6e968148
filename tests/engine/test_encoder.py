"""The encoder of a bundle: its cache is bounded, and concurrent calls do not block each other."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from sanderling.errors import BundleError
from sanderling.ranking.text_encoder import CACHE_ENTRIES, MAX_CHARACTERS, TextEncoder
from tests.support.bundles import TEXT, write_bundle

# What docs/OPERATIONS.md names as superfluous on a device, by the names of the modules.
HUB_CLIENT = ["huggingface_hub", "hf_xet", "yaml", "fsspec", "filelock", "httpx2", "httpcore2"]
HUB_CLIENT += ["anyio", "h11", "idna", "truststore", "tqdm"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "bundle"
    write_bundle(path)
    return path


def test_the_cache_is_bounded_in_entries_and_in_bytes(folder):
    """However many and long the texts are, the cache does not grow beyond its entries."""
    encoder = TextEncoder(folder, TEXT, 64)
    for number in range(CACHE_ENTRIES + 50):
        encoder.encode(f"{number} " + "rain " * 20)
    encoder.encode("long " * 1_000_000)
    assert len(encoder.cache) == CACHE_ENTRIES
    assert sum(map(len, encoder.cache)) == 16 * CACHE_ENTRIES


def test_a_text_gives_the_same_vector_from_the_cache(folder):
    """A repeated text is not encoded again, and characters beyond the limit make no difference."""
    encoder = TextEncoder(folder, TEXT, 64)
    first = encoder.encode("rainy evening")
    assert encoder.encode("rainy evening") is first
    assert encoder.encode("a" * MAX_CHARACTERS) is encoder.encode("a" * MAX_CHARACTERS + "b")
    np.testing.assert_allclose(np.linalg.norm(first), 1.0, atol=1e-5)


def test_concurrent_calls_do_not_block_each_other(folder):
    """While one thread encodes, other threads encode and read what is cached."""
    release, entered = threading.Event(), threading.Event()

    class Slow(TextEncoder):
        def encode_uncached(self, text):
            if text == "slow":
                entered.set()
                assert release.wait(20)
            return super().encode_uncached(text)

    encoder = Slow(folder, TEXT, 64)
    encoder.encode("cached")
    thread = threading.Thread(target=encoder.encode, args=("slow",))
    thread.start()
    assert entered.wait(20)
    encoder.encode("cached")
    encoder.encode("new")
    assert thread.is_alive()
    release.set()
    thread.join()


def test_many_threads_get_the_same_vectors_as_one(folder):
    """Texts that are encoded concurrently get the vectors that they get alone."""
    texts = [f"text {number % 40}" for number in range(200)]
    alone = TextEncoder(folder, TEXT, 64)
    shared = TextEncoder(folder, TEXT, 64)
    vectors: dict[str, np.ndarray] = {}

    def encode(part: list[str]) -> None:
        vectors.update({text: shared.encode(text) for text in part})

    parts = (texts[:100], texts[50:150], texts[100:])
    threads = [threading.Thread(target=encode, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(alone.encode(text), vector) for text, vector in vectors.items())


def test_encoding_needs_no_hub_client(folder):
    """Without the client that `tokenizers` asks for, and its own needs, a text is encoded."""
    code = f"""
import sys
for name in {HUB_CLIENT!r}:
    sys.modules[name] = None  # importing it fails from here on
from pathlib import Path
from sanderling.ranking.text_encoder import TextEncoder
print(*TextEncoder(Path({str(folder)!r}), {TEXT}, 64).encode("rain"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = TextEncoder(folder, TEXT, 64).encode("rain")
    np.testing.assert_allclose([float(number) for number in done.stdout.split()], expected)


def test_an_encoder_of_another_width_is_refused(folder):
    """A vector of another width than the bundle's raises BundleError."""
    with pytest.raises(BundleError, match="expected 17 finite numbers"):
        TextEncoder(folder, 17, 64).encode("rain")
