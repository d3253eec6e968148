"""The text of an item as the encoder reads it: its own, then its attributes in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def described(text: str, attributes: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return a text and the named attributes, as in `Toy Story (1995). genres: Animation Comedy`.

    Missing and empty ones are left out.
    """
    given = {name: attributes.get(name) for name in names}
    words = [f"{name}: {_words(value)}" for name, value in given.items() if not is_empty(value)]
    return ". ".join(part for part in (text.strip(), *words) if part)


def is_empty(value: Any) -> bool:
    """Return whether an attribute has no value."""
    return value is None or value in ("", [])


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
