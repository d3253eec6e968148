"""Tokens of devices: random, revocable, and stored as hashes only.

A token is valid while the store has `tokens/<its sha256>`, a file with {"name", "issued_at"}.
"""

from __future__ import annotations

import secrets
from hashlib import sha256

import msgspec

from sanderling.errors import SanderlingError
from sanderling.runtime.clock import Clock
from sanderling_trainer.event_log.object_store import ObjectStore

FOLDER = "tokens"
"""The folder of the store that has a file for each token."""

TOKEN_BYTES = 32
"""Random bytes of a token: too many to guess."""


class TokenError(SanderlingError):
    """There is no token of this name, there is one already, or no device could send it."""


class Token(msgspec.Struct, frozen=True):
    """What is stored of a token: the device's name, wall ms since 1970, and the hash."""

    name: str
    issued_at: int
    hash: str = ""


def checked_token(token: str) -> str:
    """Return a token without the white space around it, as devices send it.

    Files and environments often end in a line end, which would shut every device out. Raises
    `TokenError` for one that no device could send.
    """
    stripped = token.strip()
    if not (stripped and stripped.isascii() and stripped.isprintable()):
        found = "others" if stripped else "none"
        raise TokenError(f"token: expected printable ASCII characters, found {found}")
    return stripped


def token_file(token: str) -> str:
    """Return the name of a token's file."""
    return f"{FOLDER}/{sha256(token.encode()).hexdigest()}"


def issue(store: ObjectStore, name: str, clock: Clock) -> str:
    """Return a new token for a device; it cannot be read back later.

    Raises `TokenError` where the name has one.
    """
    if any(token.name == name for token in list_tokens(store)):
        raise TokenError(f"expected a name without a token, found one of `{name}`; revoke it first")
    token = secrets.token_urlsafe(TOKEN_BYTES)
    content = msgspec.json.encode({"name": name, "issued_at": clock.wall_ms()})
    store.put(token_file(token), content)
    return token


def revoke(store: ObjectStore, name: str) -> None:
    """Revoke the token of a device; collectors follow within seconds.

    Raises `TokenError` where there is none.
    """
    revoked = [token for token in list_tokens(store) if token.name == name]
    if not revoked:
        raise TokenError(
            f"expected the name of a token, found none named `{name}`; "
            "`sanderling tokens list` lists them"
        )
    for token in revoked:
        store.delete(f"{FOLDER}/{token.hash}")


def list_tokens(store: ObjectStore) -> list[Token]:
    """Return all valid tokens, in the order of their issue."""
    tokens = []
    for file in store.names(FOLDER):
        token = msgspec.json.decode(store.get(file), type=Token)
        tokens.append(msgspec.structs.replace(token, hash=file.removeprefix(f"{FOLDER}/")))
    return sorted(tokens, key=lambda token: token.issued_at)
