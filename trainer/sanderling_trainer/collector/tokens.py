"""The tokens of devices: random, kept only as hashes, revocable. Refuses to know what they open.

A token is valid as long as the store has the file `tokens/<sha256 of the token>`, {"name", "issued_at"}.
"""

from __future__ import annotations

import secrets
from hashlib import sha256

import msgspec

from sanderling.errors import SanderlingError
from sanderling.runtime.clock import Clock
from sanderling_trainer.event_log.object_store import ObjectStore

FOLDER = "tokens"
BYTES = 32


class TokenError(SanderlingError):
    """No token has this name, or one has it already."""


class Token(msgspec.Struct, frozen=True):
    """What is kept of a token: the device's name, wall ms since 1970, and the hash."""

    name: str
    issued_at: int
    hash: str = ""


def file_of(token: str) -> str:
    """Return the name of a token's file."""
    return f"{FOLDER}/{sha256(token.encode()).hexdigest()}"


def issue(store: ObjectStore, name: str, clock: Clock) -> str:
    """Make a token for a device and return it; it is not to be had a second time."""
    if any(token.name == name for token in listed(store)):
        raise TokenError(
            f"expected a name without a token, found that `{name}` has one; revoke it first"
        )
    token = secrets.token_urlsafe(BYTES)
    store.put(file_of(token), msgspec.json.encode({"name": name, "issued_at": clock.wall_ms()}))
    return token


def revoke(store: ObjectStore, name: str) -> None:
    """End the token of a device; collectors know within seconds."""
    mine = [token for token in listed(store) if token.name == name]
    if not mine:
        raise TokenError(
            f"expected the name of a token, found none named `{name}`; `sanderling tokens list` has all"
        )
    for token in mine:
        store.delete(f"{FOLDER}/{token.hash}")


def listed(store: ObjectStore) -> list[Token]:
    """Return all valid tokens by the time of their issue."""
    found = []
    for name in store.names(FOLDER):
        token = msgspec.json.decode(store.get(name), type=Token)
        found.append(msgspec.structs.replace(token, hash=name.removeprefix(f"{FOLDER}/")))
    return sorted(found, key=lambda token: token.issued_at)
