"""Checks settings that people write in files, options and calls, by the types of the fields."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from functools import cache
from typing import Any, get_type_hints

import msgspec
import numpy as np
from msgspec import inspect


@cache
def types_of(owner: type) -> Mapping[str, Any]:
    """Return the type of each field of a dataclass or struct, with its bounds."""
    return get_type_hints(owner, include_extras=True)


def checked(values: Mapping[str, Any], types: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return values as their types have them: an integer as a number, a name as its member.

    types: of each name that may be given.
    where: what the message begins with, such as a file's name.

    Raises `ValueError` for the first unknown name or wrong value, with what was expected and found.
    """
    prefix = f"{where}: " if where else ""
    result = {}
    for name, value in values.items():
        if name not in types:
            raise ValueError(f"{prefix}{_unknown(name, types)}")
        plain = value.item() if isinstance(value, np.generic) else value
        try:
            result[name] = msgspec.convert(plain, types[name])
            is_right = not isinstance(plain, float) or math.isfinite(plain)
        except msgspec.ValidationError:
            is_right = False
        if not is_right:
            expected = description(types[name])
            raise ValueError(f"{prefix}{name}: expected {expected}, found {value!r:.80}")
    return result


def description(kind: Any) -> str:
    """Return a type in words, such as `an integer from 0 to 1000`."""
    return _described(inspect.type_info(kind))


def _described(kind: Any) -> str:
    match kind:
        case inspect.UnionType():
            return " or ".join(map(_described, kind.types))
        case inspect.NoneType():
            return "none"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType():
            return _alternatives(kind.values)
        case inspect.EnumType():
            return _alternatives([member.value for member in kind.cls])
        case inspect.StrType():
            return f"text that matches {kind.pattern}" if kind.pattern else "text"
        case inspect.IntType():
            return f"an integer{_bounds(kind)}"
        case inspect.FloatType():
            return f"a number{_bounds(kind)}"
    return str(kind)


def _alternatives(values: Any) -> str:
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f" from {_number(kind.ge)} to {_number(kind.le)}"
    if kind.gt is not None:
        return f" above {_number(kind.gt)}"
    return "" if kind.ge is None else f" of at least {_number(kind.ge)}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _unknown(name: str, types: Mapping[str, Any]) -> str:
    similar = difflib.get_close_matches(name, types, 1)
    hint = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(sorted(types))}"
    return f"expected the name of a setting, found {name!r:.80}; {hint}"
