"""The gate: does a bundle, opened as a device opens it, compute what its checkpoint does?

    run_checks        every check of a bundle against its checkpoint
    check             one row of the gate's table
    thresholds        what is good enough, by the encoder's tier
    reference_policy  what the float policy recommends, and the trainer's held-out queries
    probe_process     runs the real engine in a child process, `probe_worker`
    probe_protocol    the files that the two exchange

It only reads bundles; `build_bundle` decides what happens to one that fails.
"""

from __future__ import annotations

from sanderling_quantize.gate.check import Check, GateError, report
from sanderling_quantize.gate.reference_policy import TeacherTexts, TextSplit
from sanderling_quantize.gate.run_checks import run_checks
from sanderling_quantize.gate.thresholds import Thresholds

__all__ = ["Check", "GateError", "TeacherTexts", "TextSplit", "Thresholds", "report", "run_checks"]
