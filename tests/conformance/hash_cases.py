"""Cases of what needs no bundle: Philox, uniforms, hashes, ids and arms."""

from __future__ import annotations

import hashlib
from random import Random
from typing import Any

from sanderling.bundle.reader import id_hash
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling.exploration.arms import arm_of
from sanderling.exploration.philox import Words, philox, uniforms
from sanderling.runtime.clock import uuid7
from tests.conformance.files import CaseFile
from tests.conformance.randoms import (
    HOSTILE_TEXTS,
    START_MS,
    any_text,
    decision_id,
    hex_id,
    pick,
    text,
    whole,
)

ALL_ONES = 2**32 - 1


def philox_cases() -> CaseFile:
    """Return blocks of Philox4x32-10, those of Random123's known answers first."""
    rng = Random(1)
    blocks: list[tuple[Words, tuple[int, int]]] = [
        ((0, 0, 0, 0), (0, 0)),
        ((ALL_ONES,) * 4, (ALL_ONES,) * 2),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)),
    ]
    for _ in range(197):
        a, b, c, d, e, f = (rng.getrandbits(32) for _ in range(6))
        blocks.append(((a, b, c, d), (e, f)))
    cases = [
        {"counter": counter, "key": key, "words": philox(counter, key)} for counter, key in blocks
    ]
    return CaseFile("A block of Philox4x32-10: counter and key to four 32-bit words.", {}, cases)


def uniform_cases() -> CaseFile:
    """Return the uniforms of decisions."""
    rng = Random(2)
    ids = ["0" * 32, "f" * 32, "0" * 31 + "1", *(decision_id(rng) for _ in range(397))]
    cases = [
        {"decision": id, "uniforms": uniforms(id, 40 if i == 3 else whole(rng, 1, 4))}
        for i, id in enumerate(ids)
    ]
    return CaseFile("The pairs of uniforms of a decision, block by block.", {}, cases)


def hash_cases() -> CaseFile:
    """Return hashes of texts, checksums of states, arms of installs, and ids from random bytes."""
    rng = Random(3)
    cases: list[dict[str, Any]] = []
    texts = [*HOSTILE_TEXTS, "\ud800 lone", *(any_text(rng) for _ in range(200))]
    texts += [pick(rng, "abc") * length for length in (1, 127, 128, 129, 255, 256, 257, 1000)]
    for each in texts:
        data = each.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        cases.append({"text": each, "id_hash": f"{int(id_hash(each)):016x}", "blake2b_128": digest})
    checksum = NO_EVENTS
    for i in range(400):
        item, kind = text(rng) or "item", pick(rng, ["view", "click", "größe ☂", any_text(rng)])
        before = NO_EVENTS if i % 20 == 0 else checksum
        checksum = next_checksum(before, item, kind)
        cases.append({"before": before, "item": item, "kind": kind, "checksum": checksum})
    for _ in range(500):
        shares = tuple(whole(rng, 1, 40) / 100 for _ in range(whole(rng, 1, 4)))
        if sum(shares) > 1.0:
            shares = shares[:2]
        name, install = pick(rng, ["autumn", "a", "exp-2.b"]), hex_id(rng)
        arm = arm_of(name, shares, install)
        cases.append({"experiment": name, "shares": shares, "install": install, "arm": arm})
    for _ in range(200):
        now_ms, entropy = START_MS + whole(rng, 0, 10**12), rng.getrandbits(80).to_bytes(10, "big")
        id = uuid7(now_ms, lambda size, drawn=entropy: drawn[:size])
        cases.append({"now_ms": now_ms, "entropy": entropy.hex(), "uuid7": id})
    about = "Hashes of ids and texts, checksums of states, arms of installs, and ids."
    return CaseFile(about, {}, cases)
