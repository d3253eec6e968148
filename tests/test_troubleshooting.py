"""The page on error messages quotes messages that the code has."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.support.doc_blocks import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| [`\d]", line)]
MESSAGES = [
    message for row in ROWS for message in re.findall(r"`([^`]+)`", re.split(r" \| ", row)[0])
]


@cache
def strings() -> str:
    """Return all texts in the code of the three packages, also the fixed parts of f-strings; a null
    stands wherever a value is put in, and between texts.
    """
    found = []
    for part in ("engine", "quantize", "trainer"):
        for path in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(map(fixed, node.values)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return re.sub(r"\s+", " ", "\0".join(found).replace("`", "'"))


def fixed(part: ast.expr) -> str:
    """Return the text of a part of an f-string, or a null for a value."""
    return str(part.value) if isinstance(part, ast.Constant) else "\0"


def is_in_the_code(message: str) -> bool:
    """Return whether every piece of a message between values and quotes stands in the code."""
    pieces = [piece.strip(" :;,.") for piece in re.split(r"…", message)]
    return all(piece in strings() for piece in pieces if len(piece) > 3)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_one_of_the_code(message):
    """No row quotes a sentence that nothing says any more."""
    assert is_in_the_code(message)


def test_an_invented_message_is_noticed():
    """The check above fails for sentences that are not in the code; the page has many rows."""
    assert not is_in_the_code("expected a sentence that nobody has written")
    assert len(MESSAGES) > 60
