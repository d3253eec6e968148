"""Tokens are stored as hashes only, and end when they are revoked."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sanderling_trainer.collector.authentication import Authenticator
from sanderling_trainer.collector.limits import Limits, RefusalError
from sanderling_trainer.collector.store_probe import StoreProbe
from sanderling_trainer.collector.tokens import (
    TokenError,
    checked_token,
    issue,
    list_tokens,
    revoke,
)
from sanderling_trainer.event_log.object_store import LocalObjectStore, open_store
from sanderling_trainer.event_log.tombstones import LOOKUP_CACHE_S
from tests.support.fakes import FakeClock
from tests.support.servers import Server, events, packed
from tests.support.waiting import wait_until

pytestmark = pytest.mark.lab


def status(server: Server, token: str) -> int:
    return server.post(packed(*events(1)), authorization=f"Bearer {token}")[0]


def test_a_token_is_valid_until_it_is_revoked(tmp_path):
    """A device's token is accepted; once revoked it is refused after the next lookup, and others
    are not.
    """
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    server = Server(tmp_path, store, clock=clock)
    mine, other = issue(store, "phone-7", clock), issue(store, "phone-8", clock)
    assert (status(server, mine), status(server, other), status(server, "guess")) == (200, 200, 401)
    revoke(store, "phone-7")
    clock.advance(LOOKUP_CACHE_S)
    assert (status(server, mine), status(server, other)) == (401, 200)
    server.stop()


def test_a_line_end_around_the_shared_token_is_dropped(tmp_path):
    """A token from a file, with a line end on the collector's side, admits devices with it."""
    server = Server(tmp_path, LocalObjectStore(tmp_path), token="secret\n")
    assert (status(server, "secret"), status(server, "other")) == (200, 401)
    server.stop()


@pytest.mark.parametrize("token", ["", " \n", "sécret", "two\nlines"])
def test_a_shared_token_that_no_device_could_send_is_refused(token):
    """An impossible token ends the start of a collector instead of shutting every device out."""
    with pytest.raises(TokenError, match="token: expected printable ASCII characters"):
        checked_token(token)


class SlowLookupStore(LocalObjectStore):
    """Answers that a token is absent only after `go` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.go = threading.Event()

    def has(self, name: str) -> bool:
        exists = super().has(name)
        if name.startswith("tokens/") and not exists:
            self.go.wait(20)
        return exists


def test_unknown_tokens_do_not_keep_a_known_one_out(tmp_path):
    """While unknown tokens are looked up, and more are refused, a known one is served and looked up
    again.
    """
    store, clock = SlowLookupStore(tmp_path), FakeClock()
    server = Server(tmp_path, store, clock=clock, limits=Limits(unknown_tokens=5, requests=1))
    mine = issue(store, "phone-7", clock)
    assert status(server, mine) == 200
    with ThreadPoolExecutor(20) as pool:
        guesses = [
            pool.submit(server.post, packed(*events(1)), authorization=f"Bearer {guess}")
            for guess in range(20)
        ]
        assert wait_until(lambda: sum(guess.done() for guess in guesses) == 15)
        assert status(server, mine) == 200
        clock.advance(LOOKUP_CACHE_S)
        assert status(server, mine) == 200
        store.go.set()
    answers = [
        (status, headers.get("retry-after"))
        for status, headers, _ in (guess.result() for guess in guesses)
    ]
    assert sorted(answers, key=str) == [(401, None)] * 5 + [(503, "5")] * 15
    revoke(store, "phone-7")
    clock.advance(LOOKUP_CACHE_S)
    assert status(server, mine) == 401
    server.stop()


def answers(store: LocalObjectStore, tokens: list[str], rounds: int) -> list[list[int]]:
    """Check all tokens at once in a new collector, several times; return the statuses of each
    round.
    """

    async def check(authenticator: Authenticator, token: str) -> int:
        try:
            await authenticator.check(f"Bearer {token}")
            return 200
        except RefusalError as refusal:
            return refusal.status

    async def all_at_once() -> list[list[int]]:
        clock, limits = FakeClock(), Limits(unknown_tokens=40)
        authenticator = Authenticator(store, None, clock, limits, StoreProbe(store, clock))
        statuses_of = [
            await asyncio.gather(*(check(authenticator, token) for token in tokens))
            for _ in range(rounds)
        ]
        authenticator.close()
        return [sorted(statuses) for statuses in statuses_of]

    return asyncio.run(all_at_once())


def test_a_new_collector_accepts_a_fleet(tmp_path):
    """Of a hundred devices that come at once to a new collector, all are accepted after their
    retries.
    """
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    tokens = [issue(store, f"phone-{number}", clock) for number in range(100)]
    assert answers(store, tokens, 3) == [
        [200] * 40 + [503] * 60,
        [200] * 80 + [503] * 20,
        [200] * 100,
    ]


def test_a_missing_bucket_is_not_a_revoked_token(tmp_path, bucket):
    """If the bucket itself is missing the answer is 503, the store fails, and not 401."""
    server = Server(tmp_path, open_store(bucket.replace("bucket", "missing")))
    answer, headers, _ = server.post(packed(*events(1)), authorization="Bearer phone")
    assert (answer, headers["retry-after"], server.get("/readyz")[0]) == (503, "5", 503)
    server.stop()


def test_the_store_does_not_contain_the_token(tmp_path):
    """No name or content of a file has the token's bytes, and the list has only its hash."""
    store = LocalObjectStore(tmp_path)
    token = issue(store, "phone-7", FakeClock())
    contents = "".join(
        str(path) + path.read_text() for path in tmp_path.rglob("*") if path.is_file()
    )
    assert token not in contents
    [stored] = list_tokens(store)
    assert (stored.name, stored.issued_at, len(stored.hash)) == ("phone-7", FakeClock().wall, 64)


def test_a_name_has_one_token(tmp_path):
    """A second token for a name, and revoking one that does not exist, raise `TokenError`."""
    store = LocalObjectStore(tmp_path)
    issue(store, "phone-7", FakeClock())
    with pytest.raises(TokenError, match="revoke it first"):
        issue(store, "phone-7", FakeClock())
    with pytest.raises(TokenError, match="none named `phone-9`"):
        revoke(store, "phone-9")


def test_a_collector_without_tokens_refuses_everything(tmp_path):
    """Without a shared or issued token every batch is refused, also with the name of a file as
    token.
    """
    server = Server(tmp_path, token=None)
    assert [
        status(server, token) for token in ("secret", "None", "", "../probe", "x" * 50_000)
    ] == [401] * 5
    server.stop()


def test_the_commands_issue_list_and_revoke(tmp_path):
    """The token that `tokens issue` prints is valid, `list` lists it, and `revoke` ends it."""

    def run(*arguments: str) -> dict:
        command = [
            sys.executable,
            "-m",
            "sanderling",
            "tokens",
            *arguments,
            "--store",
            str(tmp_path),
            "--json",
        ]
        return json.loads(
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        )

    server = Server(tmp_path, token=None)
    assert status(server, run("issue", "--name", "phone-7")["token"]) == 200
    assert [token["name"] for token in run("list")["tokens"]] == ["phone-7"]
    assert run("revoke", "--name", "phone-7")["revoked"]
    assert run("list") == {"tokens": []}
    server.stop()
