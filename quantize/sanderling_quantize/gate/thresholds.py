"""What is good enough for a bundle to be written. Refuses to know how anything is measured."""

from __future__ import annotations

from dataclasses import dataclass

MB = 10**6


@dataclass(frozen=True)
class Thresholds:
    """The least, or for lengths, drift, latency and bytes the most, with which a bundle passes; by default tier small.

    cosine_seen, cosine_unseen: mean cosine of the encoder to the float teacher, on texts that the student was trained
    on, and on catalogue texts that it never saw.
    spearman_seen, spearman_unseen: rank correlation of the similarities of all pairs of texts, encoder and teacher.
    neighbours_seen, neighbours_unseen: mean overlap of each text's 10 nearest others, encoder and teacher.
    new_item: mean cosine of an unseen text's item vector, as the device makes it, to the one that the float teacher and
    policy would make.
    length: most by which the length of a text's vector differs from 1.
    item_rows: least agreement of one int8 row with its float vector: see `measures.agreement`.
    rows_top: mean overlap of the 10 best by int8 rows and by float rows, for items and users as queries.
    slate: mean overlap of the greedy slate of 10, device and float policy.
    drift: mean total variation distance of the first slot's propensities, device and float policy.
    ndcg: nDCG@10 of the device, plus two standard errors, over that of the float policy, on the checkpoint's queries.
    latency: most that encoding a text, or one recommendation, may take, in times of the previous release's.
    encoder_bytes, bundle_bytes: size of encoder.onnx, and of all files together.
    """

    cosine_seen: float = 0.90
    cosine_unseen: float = 0.85
    spearman_seen: float = 0.90
    spearman_unseen: float = 0.85
    neighbours_seen: float = 0.65
    neighbours_unseen: float = 0.55
    new_item: float = 0.85
    length: float = 0.01
    item_rows: float = 0.999
    rows_top: float = 0.97
    slate: float = 0.95
    drift: float = 0.10
    ndcg: float = 0.98
    latency: float = 1.5
    encoder_bytes: int = 8 * MB
    bundle_bytes: int = 1000 * MB

    @staticmethod
    def of(tier: str) -> Thresholds:
        """Return the defaults of an encoder's tier: base (the whole teacher in int8), small or nano (students)."""
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
