"""The gate: is the finished bundle, opened as a device opens it, still the policy and teacher that it was made from?

    judge       the table: every check of a bundle against its checkpoint
    thresholds  what is good enough, by the encoder's tier
    ask, child  the real engine in a process of its own, asked through plain files
    policy      the float policy's side of the comparison, and the trainer's held-out queries
    measures    cosine, Spearman, overlaps, drift, nDCG: pure
    checks      one line of the table

Refuses to write or to repair a bundle.
"""

from __future__ import annotations

from sanderling_quantize.gate.check import Check, report
from sanderling_quantize.gate.run_checks import judge
from sanderling_quantize.gate.thresholds import Thresholds
from sanderling_quantize.similarity import neighbours, spearman

__all__ = ["Check", "Thresholds", "judge", "neighbours", "report", "spearman"]
