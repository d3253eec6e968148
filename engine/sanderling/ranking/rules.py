"""Rules at request: the structured form of `where`, checked once and kept by its canonical form.

A rule is a mapping. Its entries must all hold: an attribute with a value or with operators, or
`and`, `or`, `not` with rules. docs/RULES.md describes the form for callers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sanderling.errors import shown

Bools = NDArray[np.bool_]
Scalar = str | int | float | bool

MAX_CONDITIONS = 256
MAX_DEPTH = 16  # of rules inside rules
MAX_VALUES = 10_000  # of one `in`, `any` or `all`
CACHED_RULES = 256

ORDERING = ("lt", "le", "gt", "ge")
LISTS = ("in", "any", "all")
OPERATORS = ("eq", *ORDERING, *LISTS, "exists")
CONNECTIVES = ("and", "or", "not")


class Comparison(NamedTuple):
    """One attribute, one operator and its operand."""

    attribute: str
    operator: str
    operand: Any

    @property
    def operands(self) -> list[Any]:
        """The operand, or all of a list."""
        return self.operand if isinstance(self.operand, list) else [self.operand]


class Connective(NamedTuple):
    """`and`, `or` or `not` of some conditions."""

    name: str
    conditions: tuple[Condition, ...]


Condition = Comparison | Connective


class Rule:
    """A checked rule. Equal and hashed by its canonical form, the JSON with sorted keys."""

    def __init__(self, canonical: bytes, condition: Condition) -> None:
        self.canonical = canonical
        self.condition = condition
        self._hash = hash(canonical)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rule) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return self.canonical.decode()


def parse(where: object, name: str = "where") -> Rule:
    """Return the rule that a caller gave in the argument `name`.

    Raises `TypeError` for what is no mapping or holds what JSON cannot, `ValueError` for an unknown
    operator, a wrong operand, and more than 256 conditions or 16 levels. Whether attributes exist
    and are of a fitting type shows against a catalog (`matches`).
    """
    if not isinstance(where, Mapping):
        raise TypeError(
            f"{name}: expected a mapping such as {{'price': {{'lt': 50}}}}, found"
            f" {type(where).__name__} {shown(where)}"
        )
    try:
        canonical = msgspec.json.encode(where, enc_hook=_plain, order="deterministic")
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise TypeError(f"{name}: expected what JSON can hold, found {error}") from None
    return _parse(canonical, name)


def matches(condition: Condition, compare: Callable[[Comparison], Bools], rows: int) -> Bools:
    """Return which of some rows meet a condition, bool [rows].

    `compare` returns it for one comparison.
    """
    if isinstance(condition, Comparison):
        return compare(condition)
    parts = (matches(part, compare, rows) for part in condition.conditions)
    if condition.name == "not":
        return ~next(parts)
    is_and = condition.name == "and"
    combine = np.logical_and if is_and else np.logical_or
    found = np.full(rows, is_and)
    for part in parts:
        combine(found, part, out=found)
    return found


@lru_cache(maxsize=CACHED_RULES)
def _parse(canonical: bytes, name: str) -> Rule:
    try:
        where = msgspec.json.decode(canonical)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(f"{name}: expected a rule that JSON can hold, found {error}") from None
    return Rule(canonical, _Parser(name).rule(where, 0, name))


class _Parser:
    """Checks one rule and counts its conditions."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def rule(self, where: Any, depth: int, place: str) -> Condition:
        """Return the condition of a mapping; `place` says in errors where it stands."""
        if not isinstance(where, dict):
            raise ValueError(
                f"{place}: expected a mapping such as {{'price': {{'lt': 50}}}}, found"
                f" {shown(where)}"
            )
        if depth > MAX_DEPTH:
            raise ValueError(f"{self._name}: expected at most {MAX_DEPTH} levels, found more")
        parts: list[Condition] = []
        for key, value in where.items():
            at = f"{place}: {key[:80]}"
            if key in CONNECTIVES:
                parts.append(self._connective(key, value, depth, at))
            else:
                parts += self._comparisons(key, value, at)
        return parts[0] if len(parts) == 1 else Connective("and", tuple(parts))

    def _connective(self, name: str, value: Any, depth: int, place: str) -> Connective:
        if name == "not":
            return Connective(name, (self.rule(value, depth + 1, place),))
        if not isinstance(value, list):
            raise ValueError(f"{place}: expected a list of rules, found {shown(value)}")
        return Connective(name, tuple(self.rule(part, depth + 1, place) for part in value))

    def _comparisons(self, attribute: str, value: Any, place: str) -> list[Comparison]:
        if attribute == "id":
            raise ValueError(
                f"{place}: expected an attribute, found the item's id: pass ids as `among` or"
                " `exclude`"
            )
        operators = value if isinstance(value, dict) else {"eq": value}
        if not operators:
            raise ValueError(f"{place}: expected one of {', '.join(OPERATORS)}, found none")
        for operator, operand in operators.items():
            self._count += 1
            if self._count > MAX_CONDITIONS:
                raise ValueError(
                    f"{self._name}: expected at most {MAX_CONDITIONS} conditions, found more;"
                    " write many values of one attribute as one `in`"
                )
            _check_operand(operator, operand, place)
        return [Comparison(attribute, name, operand) for name, operand in operators.items()]


def _check_operand(operator: str, operand: Any, place: str) -> None:
    """Raise `ValueError` for an unknown operator, and an operand that no attribute could have."""
    if operator not in OPERATORS:
        raise ValueError(
            f"{place}: expected an operator, one of {', '.join(OPERATORS)}, found {operator!r:.80}"
        )
    at = f"{place}: {operator}"
    if operator == "exists":
        if not isinstance(operand, bool):
            raise ValueError(f"{at}: expected true or false, found {shown(operand)}")
    elif operator in LISTS:
        is_list = isinstance(operand, list) and all(isinstance(each, Scalar) for each in operand)
        if not is_list:
            raise ValueError(
                f"{at}: expected a list of texts, numbers or booleans, found {shown(operand)}"
            )
        if len(operand) > MAX_VALUES or (operator == "all" and not operand):
            least = 1 if operator == "all" else 0
            raise ValueError(f"{at}: expected {least} to {MAX_VALUES} values, found {len(operand)}")
    elif operator in ORDERING:
        if isinstance(operand, bool) or not isinstance(operand, str | int | float):
            raise ValueError(f"{at}: expected a number or a time, found {shown(operand)}")
    elif isinstance(operand, list | dict):
        raise ValueError(
            f"{at}: expected one value, found {shown(operand)}: use `any` or `all` for a list"
        )
    elif operand is None:
        raise ValueError(
            f"{at}: expected a value, found null: use {{'exists': false}} for items without one"
        )


def _plain(value: Any) -> Any:
    """Return a scalar or an array of numpy as Python's own values."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__}")
