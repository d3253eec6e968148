"""A stolen token: it can be found, it brings few installs, and it keeps nobody else waiting."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sanderling.events import codec
from sanderling_trainer.collector.limits import Limits
from sanderling_trainer.collector.tokens import TokenError, issue, list_tokens, revoke
from sanderling_trainer.event_log import token_installs
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.event_log.reader import read_segments
from sanderling_trainer.event_log.segment_format import encode_line, new_file_name, pack
from sanderling_trainer.jobs.erase import erase
from sanderling_trainer.jobs.rotate_identities import RotationError, rotate_identities
from sanderling_trainer.jobs.token_report import installs_of
from tests.support.fakes import EventFactory, FakeClock
from tests.support.servers import HEADERS, BrokenStore, Server, packed
from tests.support.waiting import wait_until

pytestmark = pytest.mark.lab

FEW = Limits(token_requests=4, new_installs=32.0)


@pytest.fixture
def store(tmp_path: Path) -> LocalObjectStore:
    return LocalObjectStore(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, clock=FakeClock(), limits=FEW)
    yield server
    server.stop()


def install(number: int) -> str:
    return f"{number:032x}"


def post(server: Server, token: str, *numbers: int) -> int:
    """Post an event of each of these installs; return the status."""
    events = [
        EventFactory(install(number), start=1000 * number).observation(seq=1) for number in numbers
    ]
    return server.post(packed(*events), authorization=f"Bearer {token}")[0]


def invent(server: Server, token: str) -> int:
    """Post batches of invented installs until one is refused; return how many were accepted."""
    for batch in range(100):
        numbers = range(1000 + 16 * batch, 1016 + 16 * batch)
        if post(server, token, *numbers) != 200:
            return 16 * batch
    return 1600


def metric(server: Server, name: str) -> dict[str, float]:
    """Return a metric of tokens by their hashes."""
    text = server.get("/metrics")[1]
    found = re.findall(rf'^sanderling_collector_{name}{{token="(\w+)"}} (\S+)', text, re.MULTILINE)
    return {token: float(value) for token, value in found}


def test_a_token_brings_few_new_installs(server: Server, store: LocalObjectStore) -> None:
    """Beyond its daily number a token gets 429 for new installs; those that it has brought, other
    tokens, and the shared one go on. With time it may bring more.
    """
    clock = FakeClock()
    stolen, honest = issue(store, "phone-7", clock), issue(store, "phone-8", clock)
    assert post(server, stolen, 1) == 200
    assert invent(server, stolen) in (32, 48)
    assert post(server, stolen, 5000) == 429
    assert post(server, stolen, 1) == 200
    assert post(server, honest, 2, 3) == 200
    assert invent(server, "secret") == 1600


def test_known_installs_stay_known_after_a_restart(tmp_path: Path, store: LocalObjectStore) -> None:
    """A new collector asks the store which installs a token has brought, and counts none twice."""
    token = issue(store, "gateway", FakeClock())
    for _ in range(2):
        server = Server(tmp_path, clock=FakeClock(), limits=FEW)
        assert [post(server, token, *range(at, at + 16)) for at in (1, 17)] == [200, 200]
        assert post(server, token, *range(1, 17)) == 200
        server.stop()
    assert len(store.names(token_installs.FOLDER)) == 32


def test_the_metrics_name_the_token_that_invents(server: Server, store: LocalObjectStore) -> None:
    """Installs and events are counted by token, under the digits that `tokens list` shows."""
    clock = FakeClock()
    tokens = {name: issue(store, name, clock) for name in ("phone-7", "phone-8")}
    hashes = {token.name: token.hash[: token_installs.SHOWN_DIGITS] for token in list_tokens(store)}
    invented = invent(server, tokens["phone-7"])
    for _ in range(2):
        post(server, tokens["phone-8"], 1)
    assert metric(server, "token_installs") == {hashes["phone-7"]: invented, hashes["phone-8"]: 1}
    assert metric(server, "token_events") == {hashes["phone-7"]: invented, hashes["phone-8"]: 2}
    assert str(tokens["phone-7"]) not in server.get("/metrics")[1]


def test_the_installs_of_a_token_are_listed(
    server: Server, store: LocalObjectStore, tmp_path: Path
) -> None:
    """By its name, and after it was revoked by the digits of its hash; nothing else is."""
    token = issue(store, "phone-7", FakeClock())
    [stored] = list_tokens(store)
    post(server, token, 1, 2)
    post(server, "secret", 3)
    assert installs_of(str(tmp_path), "phone-7") == [install(1), install(2)]
    revoke(store, "phone-7")
    assert installs_of(str(tmp_path), stored.hash[:16]) == [install(1), install(2)]
    with pytest.raises(TokenError, match="expected the name of a token, or 16 digits"):
        installs_of(str(tmp_path), "phone-7")


def test_slow_bodies_of_one_token_leave_room_for_others(
    server: Server, store: LocalObjectStore
) -> None:
    """While a token has as many requests as it may, its next one gets 503, and other tokens are
    served; afterwards it is served again.
    """
    clock = FakeClock()
    slow, honest = issue(store, "phone-7", clock), issue(store, "phone-8", clock)
    with ExitStack() as bodies:
        for _ in range(FEW.token_requests):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
            bodies.enter_context(connection)
            headers = HEADERS | {"authorization": f"Bearer {slow}", "content-length": "1000"}
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            connection.sendall(f"POST /v1/events HTTP/1.1\r\nhost: x\r\n{head}\r\nsome".encode())
        assert wait_until(lambda: "requests_in_progress 4.0" in server.get("/metrics")[1])
        assert post(server, slow, 1) == 503
        assert [post(server, honest, 2) for _ in range(5)] == [200] * 5
    assert wait_until(lambda: post(server, slow, 1) == 200)


def test_a_store_that_fails_is_no_install(tmp_path: Path) -> None:
    """While the store refuses writes, batches get 503, nothing is remembered, and once it works the
    same batch is accepted.
    """
    store = BrokenStore(tmp_path)
    store.broken = False
    token = issue(store, "phone-7", FakeClock())
    store.broken = True
    server = Server(tmp_path, store, clock=FakeClock(), limits=FEW)
    assert post(server, token, 1) == 503
    assert store.names(token_installs.FOLDER) == []
    store.broken = False
    assert post(server, token, 1) == 200
    server.stop()


def test_invented_installs_do_not_stop_a_rotation(tmp_path: Path, store: LocalObjectStore) -> None:
    """Of 2,000 installs with gaps that one token has invented the rotation counts one device; the
    same from as many tokens, or from nobody known, it refuses.
    """
    make = EventFactory()
    rows = [make.observation(install=install(number), seq=1) for number in range(1, 3001)]
    rows += [make.observation(install=install(number), seq=3) for number in range(1, 2001)]
    lines = [encode_line(codec.encode(row), 1, 1) for row in rows]
    store.put(new_file_name("segments", FakeClock()), pack(lines))
    with pytest.raises(RotationError, match="found 2000"):
        rotate_identities(str(tmp_path))

    for number in range(1, 2001):
        store.put(token_installs.install_file("a" * 64, install(number)), b"")
    assert len(rotate_identities(str(tmp_path))) == 2000


def test_erasing_an_install_forgets_its_token(server: Server, store: LocalObjectStore) -> None:
    """After an erasure no file joins the install with a token; the token's others stay."""
    clock = FakeClock()
    token = issue(store, "phone-7", clock)
    post(server, token, 1, 2)
    assert len(store.names(token_installs.FOLDER)) == 2
    erase(store, install(1), clock, clock.advance)
    assert token_installs.files_of(store, install(1)) == []
    assert len(token_installs.files_of(store, install(2))) == 1
    assert {key for key, _ in read_segments(str(store.root)).events} == {install(2)}
