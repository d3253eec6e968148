"""Fits what tells a device which texts are out of the domain of a catalog: centroids of the texts
that the encoder was distilled on, and limits by texts that it was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.reader import Bundle
from sanderling.ranking.text_domain import TextDomain
from sanderling.ranking.text_encoder import TextEncoder

Floats = NDArray[np.float32]

ALPHA = 0.05
"""The share of texts like the catalog's that are flagged at most, on average over catalogs."""

MIN_UNKNOWN = 0.05
"""A text with no larger share of unknown tokens is never flagged for it."""

CENTROIDS = 64
TEXTS_PER_CENTROID = 8
FITTED = 2048
"""Texts that the centroids are fitted to, at most."""

CALIBRATED = 1024
"""Texts that limits or shares are taken from, at most."""

ROUNDS = 20


def domain_of_encoder(bundle: Path) -> dict[str, Floats]:
    """Return the domain's tensors of an earlier bundle, whose encoder is taken; none where it has
    none. What that encoder was distilled on does not change with the catalog."""
    policy = Bundle.open(bundle).policy
    return {name: policy[name] for name in policy if name.startswith("text.")}


def share_outside(
    encoder: TextEncoder, tensors: Mapping[str, Floats], texts: Sequence[str]
) -> float | None:
    """Return the share of a catalog's texts that are out of a domain, of at most 1,024 of them;
    None without a domain or texts."""
    domain = TextDomain.of(tensors)
    if domain is None or not texts:
        return None
    encoded = [encoder.encode_item_text(text) for text in _sample(texts, CALIBRATED)]
    return float(np.mean([domain.is_outside(*each) for each in encoded]))


def fit_text_domain(
    encoder: TextEncoder, texts: Sequence[str], held_out: Sequence[str]
) -> dict[str, Floats]:
    """Return the tensors `text.centroids` [k, t] and `text.limits` [2] of a bundle.

    encoder: the bundle's own, as devices run it.
    texts: of the catalog, which the encoder was distilled on.
    held_out: of the catalog, which it was not distilled on.

    None of it where fewer than 39 texts are held out: no limit is then exceeded by a share of
    `ALPHA` / 2 alone. Each limit is a split conformal quantile (Vovk et al. 2005): of a text that
    is exchangeable with the held-out ones distance and unknown share are beyond theirs with a
    probability of at most `ALPHA` / 2 each.
    """
    held_out = _sample(held_out, CALIBRATED)
    rank = int(np.ceil((len(held_out) + 1) * (1.0 - ALPHA / 2.0)))
    if rank > len(held_out) or not texts:
        return {}

    fitted, _ = _encode(encoder, _sample(texts, FITTED))
    centroids = spherical_centroids(fitted, min(CENTROIDS, -(-len(fitted) // TEXTS_PER_CENTROID)))
    vectors, unknown = _encode(encoder, held_out)
    distances = TextDomain(centroids, np.ones(2, np.float32)).distance(vectors)
    limits = [float(np.sort(scores)[rank - 1]) for scores in (distances, unknown)]
    limits[1] = max(limits[1], MIN_UNKNOWN)
    return {"text.centroids": centroids, "text.limits": np.array(limits, np.float32)}


def spherical_centroids(vectors: Floats, k: int) -> Floats:
    """Return k unit vectors [k, t] of which each of the unit vectors [n, t], n >= k, is near one.

    Spherical k-means (Dhillon and Modha 2001) from evenly spaced rows; the same on every run.
    """
    centroids = vectors[np.linspace(0, len(vectors) - 1, k).astype(np.int64)]
    for _ in range(ROUNDS):
        nearest = (vectors @ centroids.T).argmax(axis=1)
        sums = np.zeros_like(centroids)
        np.add.at(sums, nearest, vectors)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A centroid that no vector is nearest to stays where it is.
        centroids = np.where(lengths > 0.0, sums / np.maximum(lengths, 1e-12), centroids)
    return np.ascontiguousarray(centroids, np.float32)


def _sample(texts: Sequence[str], at_most: int) -> list[str]:
    """Return evenly spaced texts, all where there are no more than `at_most`."""
    rows = np.linspace(0, len(texts) - 1, min(len(texts), at_most)).astype(np.int64)
    return [texts[row] for row in rows]


def _encode(encoder: TextEncoder, texts: Sequence[str]) -> tuple[Floats, NDArray[np.float64]]:
    """Return the vectors [m, t] of items' texts, and their shares of unknown tokens [m]."""
    encoded = [encoder.encode_item_text(text) for text in texts]
    vectors = np.stack([each.vector for each in encoded])
    return vectors, np.array([each.unknown for each in encoded])
