"""What is good enough for a bundle to be written, by the encoder's tier."""

from __future__ import annotations

from dataclasses import dataclass

MB = 10**6


@dataclass(frozen=True)
class Thresholds:
    """Lower bounds, and upper ones where the field says "at most"; by default those of tier small.

    "Seen" texts are those that the student was trained on, "unseen" catalog texts are held out.
    """

    cosine_seen: float = 0.90
    cosine_unseen: float = 0.85
    """Mean cosine of the encoder's vectors to the float teacher's."""

    spearman_seen: float = 0.90
    spearman_unseen: float = 0.85
    """Rank correlation of the similarities of all pairs of texts, encoder and teacher."""

    neighbours_seen: float = 0.65
    neighbours_unseen: float = 0.55
    """Mean overlap of each text's 10 nearest others, encoder and teacher."""

    new_item: float = 0.85
    """Mean cosine of an unseen text's item vector, as the device computes it, to the float one."""

    length: float = 0.01
    """At most so far may the length of a text's vector be from 1."""

    item_rows: float = 0.999
    """Smallest `similarity.agreement` of an int8 row with its float vector."""

    rows_top: float = 0.97
    """Mean overlap of the 10 best by int8 and by float rows, for items and users as queries."""

    slate: float = 0.95
    """Mean overlap of the greedy slate of 10, device and float policy."""

    drift: float = 0.10
    """At most: mean total variation of the first slot's propensities, device and float policy."""

    ndcg: float = 0.98
    """nDCG@10 of the device plus two standard errors, over the float policy's."""

    latency: float = 1.5
    """At most: time of encoding a text, or of a recommendation, over the previous release's."""

    encoder_bytes: int = 8 * MB
    """At most: size of encoder.onnx."""

    bundle_bytes: int = 1000 * MB
    """At most: size of all files together."""

    @staticmethod
    def of(tier: str) -> Thresholds:
        """Return the thresholds of an encoder's tier; raise `ValueError` for an unknown one."""
        if tier not in TIERS:
            raise ValueError(f"tier: expected one of {', '.join(TIERS)}, found {tier!r}")
        return TIERS[tier]


TIERS = {
    "base": Thresholds(
        cosine_seen=0.995,
        cosine_unseen=0.995,
        spearman_seen=0.995,
        spearman_unseen=0.995,
        neighbours_seen=0.90,
        neighbours_unseen=0.90,
        new_item=0.995,
        encoder_bytes=24 * MB,
    ),
    "small": Thresholds(),
    "nano": Thresholds(
        cosine_seen=0.85,
        cosine_unseen=0.75,
        spearman_seen=0.85,
        spearman_unseen=0.75,
        neighbours_seen=0.55,
        neighbours_unseen=0.40,
        new_item=0.75,
        encoder_bytes=3 * MB,
    ),
}
