"""The domain of a catalog's texts: its limits hold for texts that were not in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sanderling.ranking.text_domain import TextDomain
from sanderling.ranking.text_encoder import EncodedText
from sanderling_quantize.encoders.text_domain import (
    ALPHA,
    CENTROIDS,
    domain_of_encoder,
    fit_text_domain,
    share_outside,
    spherical_centroids,
)
from tests.support.bundles import TEXT, reseal, write_bundle

pytestmark = pytest.mark.lab

DIM = 24
TOPICS = 12


class Encoder:
    """Makes vectors around a few topics, drawn by a text's number; those of "far N" are around
    none, and of "odd N" every token is unknown."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.topics = np.random.default_rng(seed).standard_normal((TOPICS, DIM))

    def encode_item_text(self, text: str) -> EncodedText:
        kind, number = text.split()
        rng = np.random.default_rng([self.seed, int(number), len(kind)])
        centre = self.topics[rng.integers(TOPICS)] if kind != "far" else 0.0
        vector = centre + 0.7 * rng.standard_normal(DIM)
        unit = (vector / np.linalg.norm(vector)).astype(np.float32)
        return EncodedText(unit, 1.0 if kind == "odd" else 0.0)


def texts(start: int, count: int, kind: str = "text") -> list[str]:
    return [f"{kind} {number}" for number in range(start, start + count)]


def flagged(encoder: Encoder, domain: TextDomain, of: list[str]) -> float:
    encoded = [encoder.encode_item_text(text) for text in of]
    return float(np.mean([domain.is_outside(*each) for each in encoded]))


def test_no_more_than_promised_of_further_texts_are_outside() -> None:
    """Over forty catalogs with 60 texts held out, the mean share of further texts that are flagged
    is at most the nominal one, and most texts of no topic are flagged.
    """
    shares, far = [], []
    for seed in range(40):
        encoder = Encoder(seed)
        domain = TextDomain.of(fit_text_domain(encoder, texts(0, 300), texts(1000, 60)))
        assert domain is not None
        shares.append(flagged(encoder, domain, texts(5000, 200)))
        far.append(flagged(encoder, domain, texts(5000, 50, "far")))
    error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) - 3 * error <= ALPHA / 2  # unknown tokens add nothing here
    assert np.mean(shares) > ALPHA / 20
    assert np.mean(far) > 0.5


def test_unknown_tokens_alone_are_outside() -> None:
    """A text of unknown tokens is flagged, near as it may be."""
    encoder = Encoder(0)
    domain = TextDomain.of(fit_text_domain(encoder, texts(0, 300), texts(1000, 60)))
    assert domain is not None
    assert flagged(encoder, domain, texts(5000, 50, "odd")) == 1.0


def test_an_encoder_keeps_its_domain(tmp_path: Path) -> None:
    """An earlier bundle's domain is taken as it is, and none where it has none; a catalog that
    drifts away has the share of its texts outside that it has of other texts.
    """
    encoder = Encoder(0)
    fitted = fit_text_domain(encoder, texts(0, 300), texts(1000, 60))
    write_bundle(tmp_path / "plain")
    assert domain_of_encoder(tmp_path / "plain") == {}
    write_bundle(tmp_path / "bundle")
    policy = load_file(tmp_path / "bundle" / "policy.safetensors")
    wide = np.eye(TEXT, dtype=np.float32)[:3]
    policy |= {"text.centroids": wide, "text.limits": np.array([0.25, 0.05], np.float32)}
    save_file(policy, tmp_path / "bundle" / "policy.safetensors")
    reseal(tmp_path / "bundle")
    taken = domain_of_encoder(tmp_path / "bundle")
    assert {name: taken[name].tolist() for name in taken} == {
        "text.centroids": wide.tolist(),
        "text.limits": [0.25, np.float32(0.05)],
    }

    catalog = [*texts(5000, 300), *texts(5000, 100, "odd")]
    own = share_outside(encoder, fitted, texts(5000, 300))
    drifted = share_outside(encoder, fitted, catalog)
    assert own is not None
    assert drifted == pytest.approx(0.75 * own + 0.25)
    assert share_outside(encoder, {}, catalog) is None


def test_few_held_out_texts_give_no_domain() -> None:
    """With 38 held-out texts no limit is exceeded by 2.5 % alone; with 39 the largest one is."""
    encoder = Encoder(0)
    assert fit_text_domain(encoder, texts(0, 300), texts(1000, 38)) == {}
    limits = fit_text_domain(encoder, texts(0, 300), texts(1000, 39))["text.limits"]
    domain = TextDomain(
        fit_text_domain(encoder, texts(0, 300), texts(1000, 39))["text.centroids"],
        np.ones(2, np.float32),
    )
    held_out = np.stack([encoder.encode_item_text(text).vector for text in texts(1000, 39)])
    assert limits[0] == domain.distance(held_out).max()


def test_centroids_are_unit_vectors_of_the_clusters() -> None:
    """Well separated clusters each have a centroid; the same call gives the same bits."""
    rng = np.random.default_rng(0)
    centres = np.eye(DIM, dtype=np.float32)[:8]
    vectors = np.repeat(centres, 40, axis=0) + 0.01 * rng.standard_normal((320, DIM))
    vectors = rng.permutation(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    vectors = vectors.astype(np.float32)
    found = spherical_centroids(vectors, CENTROIDS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    assert ((centres @ found.T).max(axis=1) > 0.999).all()
    assert spherical_centroids(vectors, CENTROIDS).tobytes() == found.tobytes()
