"""The content of golden.json: inputs and outputs by which a device checks itself."""

from __future__ import annotations

import msgspec


class GoldenText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text and the vector [t] that the lab's encoder gave it."""

    text: str
    vector: list[float]


class GoldenState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events (item id, kind), and the ids that the lab's engine ranked highest after them."""

    events: list[tuple[str, str]]
    top: list[str]


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of golden.json."""

    texts: list[GoldenText]
    states: list[GoldenState]
