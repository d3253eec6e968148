"""The uniforms of a decision: they follow from its id alone, so any language can repeat them.

The generator is Philox4x32-10 by Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy
as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

from sanderling.kernels import loader

Words = tuple[int, int, int, int]

_M0 = 0xD2511F53
_M1 = 0xCD9E8D57
_W0 = 0x9E3779B9
_W1 = 0xBB67AE85
_LOW = 0xFFFFFFFF  # the lower 32 bits


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Return the four 32-bit words of one block; counter and key are words too."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & _LOW, p0 >> 32 ^ c3 ^ k1, p0 & _LOW
        k0, k1 = k0 + _W0 & _LOW, k1 + _W1 & _LOW
    return c0, c1, c2, c3


def uniforms(decision: str, blocks: int) -> list[tuple[float, float]]:
    """Return two doubles in [0, 1) for each block, for a decision id of 32 hex digits.

    The key is the id's last 8 bytes; the counter is (block, 0, the id's first 8 bytes); each double
    takes 53 bits from two words, the first word being the higher one. The compiled kernels return
    the same doubles faster.
    """
    kernels = loader.chosen()
    if kernels is not None:
        return kernels.uniforms(int(decision[:16], 16), int(decision[16:], 16), blocks)
    return plain_uniforms(decision, blocks)


def plain_uniforms(decision: str, blocks: int) -> list[tuple[float, float]]:
    """Return what `uniforms` does, computed in Python."""
    w0, w1, w2, w3 = (int(decision[start : start + 8], 16) for start in range(0, 32, 8))
    pairs = []
    for block in range(blocks):
        a, b, c, d = philox((block, 0, w0, w1), (w2, w3))
        pairs.append((_double(a, b), _double(c, d)))
    return pairs


def _double(high: int, low: int) -> float:
    """Return the upper 27 and 26 bits of two words as a multiple of 2^-53 in [0, 1)."""
    return ((high >> 5) * 67108864 + (low >> 6)) / 9007199254740992
