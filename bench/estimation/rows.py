"""The rows of the benchmark's result."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def row(
    data: str,
    model: str,
    metric: str,
    value: Any,
    low: Any = None,
    high: Any = None,
    seeds: int = 1,
) -> Row:
    """Return one row; `low` and `high` are the ends of its interval, if it has one."""
    columns = {"data": data, "model": model, "metric": metric}
    return {**columns, "value": value, "low": low, "high": high, "seeds": seeds}
