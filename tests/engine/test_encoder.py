"""The encoder of a bundle: its cache is bounded, and texts do not wait for one another."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from sanderling.errors import BundleError
from sanderling.ranking.text_encoder import CACHE_ENTRIES, MAX_CHARACTERS, TextEncoder
from tests.support.bundles import TEXT, write_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "bundle"
    write_bundle(path)
    return path


def test_the_cache_is_bounded_in_entries_and_in_bytes(folder):
    """However many texts come, and however long they are, what is kept does not grow beyond its entries."""
    encoder = TextEncoder(folder, TEXT, 64)
    for at in range(CACHE_ENTRIES + 50):
        encoder.encode(f"{at} " + "rain " * 20)
    encoder.encode("long " * 1_000_000)
    assert len(encoder._cache) == CACHE_ENTRIES
    assert sum(map(len, encoder._cache)) == 16 * CACHE_ENTRIES


def test_a_text_gives_the_same_vector_from_the_cache(folder):
    """A repeated text is not encoded again; what follows the last character that is read makes no difference."""
    encoder = TextEncoder(folder, TEXT, 64)
    first = encoder.encode("rainy evening")
    assert encoder.encode("rainy evening") is first
    assert encoder.encode("a" * MAX_CHARACTERS) is encoder.encode("a" * MAX_CHARACTERS + "b")
    np.testing.assert_allclose(np.linalg.norm(first), 1.0, atol=1e-5)


def test_a_text_does_not_wait_for_another_one(folder):
    """While one thread encodes, other threads encode and read what is cached."""
    release, entered = threading.Event(), threading.Event()

    class Slow(TextEncoder):
        def _run(self, text):
            if text == "slow":
                entered.set()
                assert release.wait(20)
            return super()._run(text)

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


def test_many_threads_get_the_vectors_of_one(folder):
    """Texts that are encoded side by side come out as they do alone."""
    texts = [f"text {at % 40}" for at in range(200)]
    alone, together = TextEncoder(folder, TEXT, 64), TextEncoder(folder, TEXT, 64)
    found: dict[str, np.ndarray] = {}
    threads = [
        threading.Thread(
            target=lambda part: found.update({text: together.encode(text) for text in part}),
            args=(part,),
        )
        for part in (texts[:100], texts[50:150], texts[100:])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(alone.encode(text), vector) for text, vector in found.items())


def test_an_encoder_of_another_width_is_refused(folder):
    """A vector that is not of the bundle's width raises BundleError with both sizes."""
    with pytest.raises(BundleError, match="expected 17 finite numbers"):
        TextEncoder(folder, 17, 64).encode("rain")
