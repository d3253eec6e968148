"""Tokens are known by their hashes alone, and end when they are revoked."""

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
from sanderling_trainer.collector.tokens import TokenError, issue, listed, revoke
from sanderling_trainer.event_log.object_store import LocalObjectStore, open_store
from sanderling_trainer.event_log.tombstones import MAX_AGE_S
from tests.support.fakes import FakeClock
from tests.support.servers import Server, events, packed
from tests.support.waiting import wait_until

pytestmark = pytest.mark.lab


def status(server: Server, token: str) -> int:
    return server.post(packed(*events(1)), authorization=f"Bearer {token}")[0]


def test_a_token_opens_until_it_is_revoked(tmp_path):
    """A device's own token is taken; once revoked it is refused as soon as the collector asks again, others not."""
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    server = Server(tmp_path, store, clock=clock)
    mine, other = issue(store, "phone-7", clock), issue(store, "phone-8", clock)
    assert (status(server, mine), status(server, other), status(server, "guess")) == (200, 200, 401)
    revoke(store, "phone-7")
    clock.advance(MAX_AGE_S)
    assert (status(server, mine), status(server, other)) == (401, 200)
    server.stop()


class FarStore(LocalObjectStore):
    """Does not say that it lacks a token until it is told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.go = threading.Event()

    def has(self, name: str) -> bool:
        found = super().has(name)
        if name.startswith("tokens/") and not found:
            self.go.wait(20)
        return found


def test_many_unknown_tokens_shut_no_known_one_out(tmp_path):
    """While unknown tokens are looked up, and others refused, a known one is served and looked up again."""
    store, clock = FarStore(tmp_path), FakeClock()
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
        clock.advance(MAX_AGE_S)
        assert status(server, mine) == 200
        store.go.set()
    answers = [
        (found, headers.get("retry-after"))
        for found, headers, _ in (guess.result() for guess in guesses)
    ]
    assert sorted(answers, key=str) == [(401, None)] * 5 + [(503, "5")] * 15
    revoke(store, "phone-7")
    clock.advance(MAX_AGE_S)
    assert status(server, mine) == 401
    server.stop()


def answers(store: LocalObjectStore, tokens: list[str], rounds: int) -> list[list[int]]:
    """Ask a fresh collector about all tokens at once, several times; return the statuses of each round."""

    async def ask(authenticator: Authenticator, token: str) -> int:
        try:
            await authenticator.check(f"Bearer {token}")
            return 200
        except RefusalError as refusal:
            return refusal.status

    async def all_at_once() -> list[list[int]]:
        clock, limits = FakeClock(), Limits(unknown_tokens=40)
        authenticator = Authenticator(store, None, clock, limits, StoreProbe(store, clock))
        found = [
            await asyncio.gather(*(ask(authenticator, token) for token in tokens))
            for _ in range(rounds)
        ]
        authenticator.close()
        return [sorted(statuses) for statuses in found]

    return asyncio.run(all_at_once())


def test_a_fresh_collector_lets_a_fleet_in(tmp_path):
    """Of a hundred devices that a collector meets at once, all are let in when the refused ones come again."""
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    tokens = [issue(store, f"phone-{number}", clock) for number in range(100)]
    assert answers(store, tokens, 3) == [
        [200] * 40 + [503] * 60,
        [200] * 80 + [503] * 20,
        [200] * 100,
    ]


def test_a_store_that_is_gone_refuses_no_token(tmp_path, bucket):
    """Where the bucket itself is missing a device is told that the store fails, not that its token is unknown."""
    server = Server(tmp_path, open_store(bucket.replace("bucket", "missing")))
    answer, headers, _ = server.post(packed(*events(1)), authorization="Bearer phone")
    assert (answer, headers["retry-after"], server.get("/readyz")[0]) == (503, "5", 503)
    server.stop()


def test_the_store_cannot_give_a_token_back(tmp_path):
    """No file, name or listing of the store has the token's bytes."""
    store = LocalObjectStore(tmp_path)
    token = issue(store, "phone-7", FakeClock())
    held = "".join(str(path) + path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert token not in held
    [kept] = listed(store)
    assert (kept.name, kept.issued_at, len(kept.hash)) == ("phone-7", FakeClock().wall, 64)


def test_names_are_used_once_and_must_be_known(tmp_path):
    """A second token for a name, and the end of a token that is not there, are told apart from success."""
    store = LocalObjectStore(tmp_path)
    issue(store, "phone-7", FakeClock())
    with pytest.raises(TokenError, match="revoke it first"):
        issue(store, "phone-7", FakeClock())
    with pytest.raises(TokenError, match="none named `phone-9`"):
        revoke(store, "phone-9")


def test_a_collector_without_tokens_lets_nobody_in(tmp_path):
    """Without a shared token, and without any issued, every batch is refused; so is the name of a file as a token."""
    server = Server(tmp_path, token=None)
    assert [
        status(server, token) for token in ("secret", "None", "", "../probe", "x" * 50_000)
    ] == [401] * 5
    server.stop()


def test_the_commands_issue_list_and_revoke(tmp_path):
    """What `tokens issue` prints opens, `list` names it, and `revoke` ends it."""

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
