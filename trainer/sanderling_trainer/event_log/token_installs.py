"""Which token brought which install, as empty files in the store: what a stolen token has invented.

`installs/<16 hex digits of the token's hash>/<SHA-256 of the install's id>`. There is none for a
token that all devices share.
"""

from __future__ import annotations

from hashlib import sha256

from sanderling_trainer.event_log.object_store import ObjectStore

FOLDER = "installs"

SHOWN_DIGITS = 16
"""Of a token's hash: as many as `sanderling tokens list` and the metrics show."""


def install_file(token: str, install: str) -> str:
    """Return the name of the file for a token, by its hash, and an install."""
    return f"{FOLDER}/{token[:SHOWN_DIGITS]}/{_hash(install)}"


def tokens_by_install(store: ObjectStore) -> dict[str, str]:
    """Return the token of each install, both by their hashes; the last one of several."""
    names = (name.split("/") for name in store.names(FOLDER))
    return {parts[2]: parts[1] for parts in names if len(parts) == 3}


def token_of(install: str, tokens: dict[str, str]) -> str | None:
    """Return the token that brought an install, of what `tokens_by_install` returned."""
    return tokens.get(_hash(install))


def files_of(store: ObjectStore, install: str) -> list[str]:
    """Return the files of an install."""
    return [name for name in store.names(FOLDER) if name.endswith(f"/{_hash(install)}")]


def _hash(install: str) -> str:
    return sha256(install.encode()).hexdigest()
