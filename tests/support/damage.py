"""Damage to files, by attackers or by accident."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def alter(path: Path, old: bytes, new: bytes) -> None:
    """Replace bytes of a file, which it must have."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
