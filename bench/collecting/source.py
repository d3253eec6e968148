"""Generates endless batches: those of `client.bodies`, each time with new ids."""

from __future__ import annotations

import random
from collections.abc import Iterator

import zstandard

from bench.collecting.client import EVENTS, bodies

TEMPLATES = 64
# The number of the first template. It must occur nowhere else in a batch, because its digits are
# replaced.
FIRST = 0xABCDEF0123456789ABCDEF000000
DIGITS = 28


def batches(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield the prefix of the ids of a batch, and its body."""
    rng = random.Random(seed)
    compressor = zstandard.ZstdCompressor(level=3)
    decompressor = zstandard.ZstdDecompressor()
    templates = [decompressor.decompress(body) for body in bodies(TEMPLATES, FIRST)]
    while True:
        for number, template in enumerate(templates, FIRST):
            prefix = f"{rng.getrandbits(4 * DIGITS):0{DIGITS}x}"
            lines = template.replace(f"{number:0{DIGITS}x}".encode(), prefix.encode())
            yield prefix, compressor.compress(lines)


def ids(prefix: str) -> list[str]:
    """Return the ids of the batch with this prefix."""
    return [f"{prefix}{number:04x}" for number in range(1, EVENTS + 1)]
