"""The limits of a service: each refuses what is beyond it, and the service goes on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator

import pytest

from sanderling import Engine
from sanderling.service.limits import Limits
from tests.support.outboxes import database
from tests.support.services import RunningService, read_all
from tests.support.waiting import wait_until

Start = Callable[..., RunningService]


@pytest.fixture
def start(bundle, tmp_path) -> Iterator[Start]:
    """Starts a service with some limits over an engine with a state folder."""
    running = []
    with Engine.open(bundle, tmp_path / "state") as engine:

        def start(**limits: float) -> RunningService:
            service = RunningService(engine, limits=Limits(**limits))
            service.engine = engine
            running.append(service)
            return service

        yield start
        for service in running:
            service.stop()


def head(length: int, more: str = "") -> bytes:
    return (
        f"POST /v1/observe HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{more}\r\n".encode()
    )


def test_a_large_body_is_refused(start):
    """By its declared length before it is read, and without one as soon as it is too long."""
    service = start(body_bytes=1000)
    answers = [
        service.send(head(1001)),
        service.send(head(10**30)),
        service.send(
            b"POST /v1/observe HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            + b"200\r\n"
            + b"x" * 512
            + b"\r\n200\r\n"
            + b"x" * 512
            + b"\r\n"
        ),
    ]
    for answer, status in zip(answers, (413, 400, 413), strict=True):
        assert int(answer.split()[1]) in (status, 413)
    assert b"expected at most 1000 bytes" in answers[0]
    assert service.post("observe", user="anna", item="item-1").status == 200


def test_a_slow_body_is_refused(start):
    """After its time it gets 408, and the connection closes."""
    answer = start(body_s=0.1).send(head(100) + b"{")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"expected a whole one within 0.1 s" in answer


def test_bodies_that_wait_at_once_are_bounded(start):
    """While others fill the room a further body gets 503; there is room again when they are
    gone."""
    service = start(total_body_bytes=1000)
    with service.connect() as waiting:
        waiting.sendall(head(2000) + b"x" * 900)
        body = json.dumps({"user": "anna", "item": "x" * 200}).encode()
        assert wait_until(lambda: service.request("POST", "/v1/observe", body).status == 503)
    assert wait_until(lambda: service.request("POST", "/v1/observe", body).status == 200)


def test_answers_are_whole_whatever_the_way_of_asking(start):
    """Requests sent together, one after `100 Continue`, one by HEAD: each has its answer, and the
    connection stays in step."""
    service = start()
    get = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    last = b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = service.send(get + get.replace(b"GET", b"HEAD") + get + last)
    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"405", b"200", b"200"]
    assert answer.count(b'{"status":"ok"}') == 3
    assert b"error" not in answer  # the answer to HEAD has no body

    with service.connect() as connection:
        body = b'{"user":"anna","item":"item-1"}'
        connection.sendall(head(len(body), "expect: 100-continue\r\nconnection: close\r\n"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_all(connection).endswith(b"{}")


def test_a_slow_head_is_refused(start):
    """A request that does not come to its head's end gets 408."""
    service = start(head_s=0.1)
    assert service.send(b"GET /healthz HTTP/1.1\r\nhost").startswith(b"HTTP/1.1 408")
    assert service.get("/healthz").status == 200


def test_an_idle_connection_is_closed(start):
    """Before its first request, and after one."""
    service = start(idle_s=1)
    assert service.send(b"").startswith(b"HTTP/1.1 408")
    answer = service.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


def test_a_large_head_is_refused(start):
    """It gets 431 as soon as it is too large, in one part or in many."""
    service = start(head_bytes=2000)
    assert service.send(b"GET /healthz HTTP/1.1\r\nx: " + b"x" * 3000).startswith(b"HTTP/1.1 431")
    with service.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nx: ")
        for _ in range(3):
            connection.sendall(b"x" * 1000)
        assert read_all(connection).startswith(b"HTTP/1.1 431")


def test_connections_are_bounded(start):
    """One too many gets 503 in JSON and is closed; the others work on."""
    service = start(connections=2)
    with service.connect() as first, service.connect() as second:
        assert wait_until(lambda: len(service.server.server_state.connections) == 2)
        answer = service.send(b"")
        assert answer.startswith(b"HTTP/1.1 503")
        assert json.loads(answer.split(b"\r\n\r\n")[1])["error"].endswith("at most 2 connections")
        for connection in (first, second):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert read_all(connection).startswith(b"HTTP/1.1 200")
    assert wait_until(lambda: service.get("/healthz").status == 200)


def test_old_slates_are_forgotten(start):
    """Only the last slates, and so many items on slates, can be referred to."""
    service = start(slates=3, slate_items=12)
    decisions = [service.post("recommend", user="anna", k=5).json["decision"] for _ in range(4)]
    statuses = [service.post("explain", decision=each).status for each in decisions]
    assert statuses == [200] * 4  # which the engine remembers by itself

    def reward(decision: str) -> int:
        items = service.post("explain", decision=decision).json["slate"]
        return service.post("reward", decision=decision, item=items[0]["id"], value=-1).status

    assert [reward(decision) for decision in decisions] == [404, 404, 200, 200]


def test_slates_of_a_forgotten_user_are_forgotten(start):
    """Nothing of a user stays in the process: a reward for an old slate is 404, others go on."""
    service = start()
    slates = {user: service.post("recommend", user=user).json for user in ("anna", "bob")}
    service.post("forget_user", user="anna")
    statuses = [
        service.post("reward", decision=s["decision"], item=s["items"][0]["id"], value=1).status
        for s in slates.values()
    ]
    assert statuses == [404, 200]


def test_a_reward_that_waits_for_the_disk_has_a_receipt(start, tmp_path):
    """It is 202 while the file is locked, and its receipt tells when it is stored."""
    service = start()
    slate = service.post("recommend", user="anna", k=1).json
    reward = {"decision": slate["decision"], "item": slate["items"][0]["id"], "value": 1}
    other = database(tmp_path / "state")
    other.execute("BEGIN IMMEDIATE")
    answer = service.post("reward", **reward, timeout_s=0)
    assert (answer.status, answer.json["pending"], answer.json["stored"]) == (202, True, False)
    receipt = answer.json["id"]
    assert service.post("receipt", id=receipt).status == 202
    other.execute("ROLLBACK")
    other.close()
    assert wait_until(lambda: service.post("receipt", id=receipt).json["stored"], 20)
    assert service.post("receipt", id=receipt).status == 200


def test_long_calls_are_bounded_and_hold_up_nobody(start, monkeypatch):
    """While as many uploads as may run do, a further one gets 503, and slates are decided."""
    service = start(long_calls=1)
    entered, leave = threading.Event(), threading.Event()

    def flush(timeout_s: float = 10.0) -> bool:
        entered.set()
        return leave.wait(10)

    monkeypatch.setattr(service.engine, "flush", flush)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(service.post("flush")))
    thread.start()
    assert entered.wait(10)
    assert service.post("flush").status == 503
    assert service.post("recommend", user="anna").status == 200
    leave.set()
    thread.join(10)
    assert answers[0].json == {"uploaded": True}


def test_a_fault_of_the_engine_is_a_500_without_a_traceback(start, monkeypatch, caplog):
    """The log has the traceback, the answer a sentence."""
    service = start()

    def fail(**_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(service.engine, "observe", fail)
    answer = service.post("observe", user="anna", item="x")
    assert answer.status == 500
    assert "secret" not in answer.error
    assert "RuntimeError: secret" in caplog.text
