"""Which installs a token has brought: what a stolen one may have invented."""

from __future__ import annotations

from sanderling_trainer.collector.tokens import TokenError, list_tokens
from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, open_store
from sanderling_trainer.event_log.reader import read_partitions
from sanderling_trainer.event_log.summary import summarize
from sanderling_trainer.event_log.token_installs import SHOWN_DIGITS, token_of, tokens_by_install


def installs_of(store: str, name: str) -> list[str]:
    """Return the ids of the installs in the log that a token has brought, sorted.

    name: of a token, or the digits of its hash that metrics show, also of a revoked one.

    Raises `TokenError` where there is neither.
    """
    place = open_store(store, JOB_TIMEOUT)
    hashes = {token.name: token.hash[:SHOWN_DIGITS] for token in list_tokens(place)}
    tokens = tokens_by_install(place)
    wanted = hashes.get(name, name)
    if wanted not in {*hashes.values(), *tokens.values()}:
        raise TokenError(
            f"expected the name of a token, or {SHOWN_DIGITS} digits of the hash of one that has"
            f" brought installs, found `{name}`; `sanderling tokens list` lists them"
        )
    installs = summarize(read_partitions(store)).events_of
    return sorted(install for install in installs if token_of(install, tokens) == wanted)
