"""One row of the gate's table: a measured value against its threshold; the error of failed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sanderling.errors import SanderlingError


@dataclass(frozen=True)
class Check:
    """What was measured, against what, and whether it passed; `note` adds words."""

    check: str
    value: float
    threshold: float
    passed: bool
    note: str = ""

    def sentence(self) -> str:
        """Return the check in words."""
        text = f"{self.check} {self.value:.4f} against {self.threshold:.4f}"
        return f"{text} ({self.note})" if self.note else text


def at_least(check: str, value: float, threshold: float, note: str = "") -> Check:
    """Return a check that passes at or above its threshold; NaN never passes."""
    return Check(check, float(value), float(threshold), bool(value >= threshold), note)


def at_most(check: str, value: float, threshold: float, note: str = "") -> Check:
    """Return a check that passes at or below its threshold; NaN never passes."""
    return Check(check, float(value), float(threshold), bool(value <= threshold), note)


def failed_check(check: str, note: str) -> Check:
    """Return a failed check of something that has no number: value 0, threshold 1."""
    return Check(check, 0.0, 1.0, False, note)


def report(rows: Sequence[Check]) -> list[dict[str, Any]]:
    """Return the table as plain data, for the manifest and for `--json`."""
    return [asdict(row) for row in rows]


class GateError(SanderlingError):
    """The bundle failed the gate and was not written; `rows` is the gate's table."""

    def __init__(self, rows: list[Check]) -> None:
        failed = ", ".join(row.sentence() for row in rows if not row.passed)
        super().__init__(f"the bundle did not pass the gate and was not written: {failed}")
        self.rows = rows
