"""Batches without end: those of `client.bodies`, each time under ids of their own."""

from __future__ import annotations

import random
from collections.abc import Iterator

import zstandard

from bench.collecting.client import EVENTS, bodies

TEMPLATES = 64
FIRST = 0xABCDEF0123456789ABCDEF000000  # of the batches that are only templates; nothing else in them reads like it
DIGITS = 28


def batches(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield what the ids of a batch begin with, and its body."""
    rng, pack, unpack = (
        random.Random(seed),
        zstandard.ZstdCompressor(level=3),
        zstandard.ZstdDecompressor(),
    )
    templates = [unpack.decompress(body) for body in bodies(TEMPLATES, FIRST)]
    while True:
        for number, template in enumerate(templates, FIRST):
            prefix = f"{rng.getrandbits(4 * DIGITS):0{DIGITS}x}"
            yield (
                prefix,
                pack.compress(template.replace(f"{number:0{DIGITS}x}".encode(), prefix.encode())),
            )


def ids(prefix: str) -> list[str]:
    """Return the ids of the batch that begins so."""
    return [f"{prefix}{number:04x}" for number in range(1, EVENTS + 1)]
