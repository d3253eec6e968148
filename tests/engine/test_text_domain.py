"""Texts that are out of a release's domain: they are found, counted, and reported as sums alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sanderling import BundleError, Engine
from sanderling.bundle.reader import Bundle
from sanderling.events.schema import Decision, TextCounts
from sanderling.events.semantics import semantic_fault
from sanderling.ranking.text_domain import BLOCK, DomainMonitor, TextDomain
from sanderling.ranking.text_encoder import TextEncoder
from tests.support.bundles import TEXT, reseal, write_bundle
from tests.support.engines import stored
from tests.support.fakes import EventFactory

KNOWN = ["rainy evening", "trail shoe", "jazz album"]
OTHER = "0123456789 tax return form"
TEXTS = TextCounts(items=16, items_outside=16, queries=0, queries_outside=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose domain are three texts, and those very near them."""
    path = tmp_path_factory.mktemp("domain") / "bundle"
    write_bundle(path)
    encoder = TextEncoder(path, TEXT, 64)
    with_domain(path, np.stack([encoder.encode(text) for text in KNOWN]), [1e-3, 0.05])
    return path


def with_domain(folder: Path, centroids: np.ndarray, limits: list[float]) -> None:
    tensors = load_file(folder / "policy.safetensors")
    tensors["text.centroids"] = np.asarray(centroids, np.float32)
    tensors["text.limits"] = np.asarray(limits, np.float32)
    save_file(tensors, folder / "policy.safetensors")
    reseal(folder)


def test_texts_out_of_the_domain_are_counted(folder: Path) -> None:
    """Contexts and items' texts count once while they are cached, by kind; those near the training
    texts are inside, others outside.
    """
    with Engine.open(folder) as engine:
        for text in (*KNOWN, OTHER, OTHER):
            engine.recommend("anna", 3, context=text)
        engine.upsert_items([{"id": "a", "text": KNOWN[0]}, {"id": "b", "text": OTHER + "!"}])
        found = asdict(engine.counters()["texts"])
    # the first item's text is the first context's, and comes from the cache
    assert found == {"items": 1, "items_outside": 1, "queries": 4, "queries_outside": 1}


def test_unknown_tokens_are_outside(folder: Path) -> None:
    """A text of characters that the tokenizer does not know has an unknown share of 1, and is
    outside wherever its vector is.
    """
    encoded = TextEncoder(folder, TEXT, 64).encode_item_text("湖畔 の 夜")
    assert encoded.unknown == 1.0
    assert TextEncoder(folder, TEXT, 64).encode_item_text(KNOWN[0]).unknown == 0.0
    domain = TextDomain.of(Bundle.open(folder).policy)
    assert domain is not None
    near = domain.centroids[0]
    assert [domain.is_outside(near, share) for share in (0.0, 0.05, 0.06)] == [False, False, True]


def test_a_share_that_equals_the_limit_is_within() -> None:
    """Shares are quotients of small numbers, so that texts often share the limit's; those that
    float32 rounds down, as 2/11, are within, too.
    """
    centroids = np.eye(1, 4, dtype=np.float32)
    for whole in range(2, 65):
        domain = TextDomain(centroids, np.array([0.5, 2 / whole], np.float32))
        assert not domain.is_outside(centroids[0], 2 / whole)
        assert domain.is_outside(centroids[0], 2 / whole + 1e-3)


def test_texts_of_the_apps_own_models_are_not_counted(folder: Path) -> None:
    """`encode` counts nothing, so that no sum over an app's messages leaves the device."""
    with Engine.open(folder) as engine:
        engine.encode([OTHER, *KNOWN])
        assert set(asdict(engine.counters()["texts"]).values()) == {0}


def test_a_bundle_without_a_domain_counts_and_tells_nothing(tmp_path: Path) -> None:
    """Older bundles open as before: counters stay 0, and no decision has `texts`."""
    write_bundle(tmp_path / "bundle")
    with Engine.open(tmp_path / "bundle", tmp_path / "state", background=False) as engine:
        for number in range(2 * BLOCK):
            engine.recommend("anna", 3, context=f"text {number}")
        assert set(asdict(engine.counters()["texts"]).values()) == {0}
        assert all(event.texts is event.guarded for event in decisions_of(engine))


def decisions_of(engine: Engine) -> list[Decision]:
    return [event for event in stored(engine) if isinstance(event, Decision)]


def test_events_tell_sums_of_blocks(folder: Path, tmp_path: Path) -> None:
    """No decision tells of fewer than 16 texts, each text is told once, and no word of any is in
    the events.
    """
    with Engine.open(folder, tmp_path / "state", background=False) as engine:
        for number in range(3 * BLOCK + 5):
            text = KNOWN[0] if number == 0 else f"{OTHER} {number}"
            engine.recommend("anna", 3, context=text)
        told = [event.texts for event in decisions_of(engine) if event.texts]
        assert [counts.queries for counts in told] == [BLOCK] * 3
        assert [counts.queries_outside for counts in told] == [BLOCK - 1, BLOCK, BLOCK]
        assert all(semantic_fault(event) is None for event in decisions_of(engine))
        assert "tax" not in repr(stored(engine))


def test_what_was_told_is_not_told_again() -> None:
    """`take` returns differences, so that no sum goes on from one identity to the next; of each
    kind it waits for 16, so that fifteen known items do not show what one query was.
    """
    domain = TextDomain(np.eye(1, 4, dtype=np.float32), np.array([0.5, 0.05], np.float32))
    monitor = DomainMonitor(domain)
    inside, outside = np.eye(4, dtype=np.float32)[:2]
    for number in range(2 * BLOCK):
        monitor.count(outside if number % 4 == 0 else inside, 0.0, is_item=number % 2 == 0)
        taken = monitor.take()
        told = None if taken is None else tuple(asdict(taken).values())
        last_item, last_query = 2 * BLOCK - 2, 2 * BLOCK - 1
        expected = {last_item: (BLOCK, BLOCK // 2, 0, 0), last_query: (0, 0, BLOCK, 0)}
        assert told == expected.get(number)
    assert asdict(monitor.counters())["items"] == BLOCK


def test_more_outside_than_there_were_is_refused() -> None:
    """The collector rejects counts that no engine can have made."""
    counts = {"items": 1, "items_outside": 2, "queries": 16, "queries_outside": 0}
    event = EventFactory().decision(texts=TextCounts(**counts))
    assert "at most as many outside" in str(semantic_fault(event))
    assert semantic_fault(EventFactory().decision(texts=TEXTS)) is None


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_domains_of_no_numbers_are_refused(tmp_path: Path, number: float) -> None:
    """NaN and infinity in centroids or limits are a fault of the bundle that an install finds."""
    write_bundle(tmp_path / "bundle")
    for centroids, limit in ((np.full((2, TEXT), number), 0.5), (np.eye(2, TEXT), number)):
        with_domain(tmp_path / "bundle", centroids, [limit, 0.05])
        with pytest.raises(BundleError, match=r"text\.\w+: expected finite numbers"):
            Bundle.open(tmp_path / "bundle", verify=True)


@pytest.mark.parametrize("shape", [(TEXT,), (0, TEXT), (2, TEXT + 1)])
def test_misshapen_domains_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Centroids of another shape than [k, t] are a fault of the bundle."""
    write_bundle(tmp_path / "bundle")
    with_domain(tmp_path / "bundle", np.ones(shape), [0.5, 0.05])
    with pytest.raises(BundleError, match=r"text\.centroids"):
        Bundle.open(tmp_path / "bundle")
