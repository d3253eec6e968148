"""Rules written as their definition: one record at a time, in plain Python."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def naive_match(where: Mapping[str, Any], record: Mapping[str, Any], times: set[str]) -> bool:
    """Return whether a record meets a rule; `times` are the attributes that hold ISO times."""
    for key, value in where.items():
        if key == "and":
            is_met = all(naive_match(part, record, times) for part in value)
        elif key == "or":
            is_met = any(naive_match(part, record, times) for part in value)
        elif key == "not":
            is_met = not naive_match(value, record, times)
        else:
            operators = value if isinstance(value, dict) else {"eq": value}
            is_met = all(
                naive_comparison(name, operand, record.get(key), key in times)
                for name, operand in operators.items()
            )
        if not is_met:
            return False
    return True


def naive_comparison(name: str, operand: Any, value: Any, is_time: bool) -> bool:
    """Return whether one attribute's value meets one operator."""
    has_value = value is not None and value != []
    if name == "exists":
        return has_value == operand
    if not has_value:
        return False
    values = [
        _comparable(each, is_time) for each in (value if isinstance(value, list) else [value])
    ]
    if name in ORDERINGS:
        return ORDERINGS[name](values[0][1], _comparable(operand, is_time)[1])
    wanted = [
        _comparable(each, is_time) for each in (operand if isinstance(operand, list) else [operand])
    ]
    if name == "all":
        return all(each in values for each in wanted)
    return any(each in values for each in wanted)


def _comparable(value: Any, is_time: bool) -> tuple[bool, Any]:
    """Return a value that equals another only if both are booleans or none is."""
    if is_time and isinstance(value, str):
        moment = datetime.fromisoformat(value)
        value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return isinstance(value, bool), value
