"""The service: the engine's calls over HTTP, what it refuses, and how it stops."""

from __future__ import annotations

import inspect
import json
import re
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from sanderling import Engine
from sanderling.cli.service import _parse, _read_token, serve
from sanderling.events.schema import Decision, Observation, Outcome
from sanderling.service.routes import ROUTES
from sanderling.service.server import listen_on_path
from tests.support.engines import stored
from tests.support.fakes import FakeClock, FakeEntropy
from tests.support.services import TOKEN, RunningService, read_all, started
from tests.support.waiting import wait_until

WITHOUT_A_CALL = {
    "open",  # the command
    "close",  # SIGTERM
    "step",  # threads do it
    "areward",
    "areward_all",
    "aobserve",
}
RENAMED = {"slate": "decision"}
"""What is a slate in Python is the id of its decision."""


@pytest.fixture
def service(bundle, tmp_path) -> Iterator[RunningService]:
    """A service with a state folder and reward windows, without a token."""
    with Engine.open(bundle, tmp_path / "state", window_s=3600) as engine:
        running = RunningService(engine)
        running.engine = engine
        yield running
        running.stop()


def test_every_call_of_the_engine_has_one_of_the_same_arguments():
    """No public method of `Engine` is missing, and none of its parameters."""
    public = {name for name, _ in inspect.getmembers(Engine, inspect.isfunction) if name[0] != "_"}
    by_name = {route.name: route for route in ROUTES}
    assert set(by_name) - {"exploring"} == public - WITHOUT_A_CALL
    for name in public - WITHOUT_A_CALL:
        parameters = list(inspect.signature(getattr(Engine, name)).parameters)[1:]
        takes = by_name[name].takes
        fields = list(takes.__struct_fields__) if takes else []
        assert fields == [RENAMED.get(each, each) for each in parameters], name


def test_the_slates_are_those_of_the_engine(bundle, tmp_path):
    """With the same clock and randomness each answer equals the slate in Python, as JSON."""
    engines = [
        Engine.open(bundle, tmp_path / name, clock=FakeClock(), entropy=FakeEntropy())
        for name in ("ours", "served")
    ]
    service = RunningService(engines[1])
    requests: list[dict[str, Any]] = [
        {"user": "anna"},
        {"user": "anna", "k": 3, "exclude": ["item-1", "unknown"]},
        {"user": "böb", "context": "rainy evening", "greedy": True},
        {"user": "", "k": 50, "at_most": {"price": 1}},
        {"user": "anna", "where": {"price": {"lt": 30}}, "among": ["item-1", "item-2"]},
        {"user": "anna", "pin": {"1": "item-3"}, "diversity": 0.5},
        {"user": "anna", "boost": [{"where": {"price": {"ge": 40}}, "by": 2}]},
    ]
    for request in requests:
        answer = service.post("recommend", **request)
        if "pin" in request:
            request["pin"] = {1: "item-3"}  # JSON has no numbers as keys
        expected = engines[0].recommend(**request).to_dict()
        assert (answer.status, answer.json) == (200, json.loads(json.dumps(expected)))
    service.stop()
    for engine in engines:
        engine.close()


def test_the_whole_round_survives_the_end_of_the_process(bundle, tmp_path):
    """Recommended, seen, rewarded, observed; a request that is half sent at SIGTERM is answered,
    the process ends with 0, and an engine finds all of it in the state folder."""
    process, client = started(bundle, tmp_path, "--set", "window_s=3600")
    path = Path(str(client.address))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    slate = client.post("recommend", user="anna", k=4).json
    ids = [item["id"] for item in slate["items"]]
    assert client.post("seen", decision=slate["decision"], items=ids[:2]).json == {}
    receipt = client.post(
        "reward", decision=slate["decision"], item=ids[0], value=1, timeout_s=10
    ).json
    assert receipt == {"stored": True, "reason": "", "pending": False, "id": ""}

    body = json.dumps({"user": "anna", "item": "item-7"}).encode()
    head = f"POST /v1/observe HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    with client.connect() as connection:
        connection.sendall(head.encode() + body[:5])
        assert client.get("/healthz").status == 200  # the head has been read by then
        process.terminate()
        assert wait_until(lambda: refuses(path), 5)
        connection.sendall(body[5:])
        assert read_all(connection).endswith(b"{}")
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (0, "stopped; nothing is left to write\n"), errors
    assert not path.exists()

    with Engine.open(bundle, tmp_path / "state") as engine:
        events = stored(engine)
    assert [type(event) for event in events] == [Decision, Outcome, Observation]
    assert (events[1].decision, events[1].item) == (slate["decision"], ids[0])
    assert events[2].item == "item-7"


def test_a_call_without_end_does_not_hold_up_the_end(bundle, tmp_path):
    """Flush, which never returns here, and a long addition of items are given up after six seconds
    at SIGTERM; a reward that was accepted meanwhile is in the state folder."""
    endless = (
        "import time; from sanderling import Engine;"
        "Engine.flush = lambda self: time.sleep(1000);"
        "Engine.upsert_items = lambda self, items: time.sleep(11);"
    )
    process, client = started(bundle, tmp_path, before=endless)
    connections = [client.connect() for _ in range(2)]
    for connection, name, body in zip(
        connections, ("flush", "upsert_items"), (b"{}", b'{"items":[]}'), strict=True
    ):
        head = f"POST /v1/{name} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
    slate = client.post("recommend", user="anna", k=1).json
    reward = {"decision": slate["decision"], "item": slate["items"][0]["id"], "value": 1}
    assert client.post("reward", **reward, timeout_s=0).status in (200, 202)

    process.terminate()
    assert process.stdout is not None
    started_s = time.monotonic()
    assert process.stdout.readline() == "stopped; nothing is left to write\n"
    assert time.monotonic() - started_s < 10
    process.communicate(timeout=20)
    assert process.returncode == 0
    for connection in connections:
        connection.close()
    with Engine.open(bundle, tmp_path / "state") as engine:
        assert [type(event) for event in stored(engine)] == [Decision, Outcome]


def refuses(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
        return False
    except OSError:
        return True


def test_every_call_works(service):
    """Items are added, found, removed; a decision is explained; a user is forgotten."""
    item = {"id": "new", "text": "a purple kayak", "price": 7}
    assert service.post("upsert_items", items=[item]).json == {}
    assert service.post("search", query="kayak").json["items"][0]["id"] == "new"
    assert service.post("set_attributes", changes={"new": {"price": 5}}).json == {}
    cheap = service.post("recommend", user="anna", where={"price": {"lt": 6}}).json["items"]
    assert [(item["id"], item["attributes"]["price"]) for item in cheap] == [("new", 5)]
    assert service.post("similar", item="new", k=2).json["release"] == 1
    vectors = service.post("encode", texts=["kayak", ""]).json["vectors"]
    assert np.array_equal(np.float32(vectors), service.engine.encode(["kayak", ""]))
    assert service.post("remove_items", ids=["new"]).json == {}
    found = service.post("search", query="kayak", user="anna").json["items"]
    assert "new" not in [item["id"] for item in found]

    assert service.post("observe", user="anna", item="item-2", kind="click").json == {}
    slate = service.post("recommend", user="anna", k=3).json
    values = {item["id"]: 1 for item in slate["items"][:2]}
    assert service.post("reward_all", decision=slate["decision"], values=values).json["stored"]
    assert service.post("explain", decision=slate["decision"]).json["is_identical"]
    assert service.post("warm_up", attributes=["price"], search=True).json == {}
    assert service.post("exploring", exploring=False).json == {"exploring": False}
    assert not service.engine.exploring

    assert service.post("flush", timeout_s=1).json == {"uploaded": False}
    assert service.request("POST", "/v1/rollback").json == {"updated_to": None, "active": 1}
    assert service.get("/v1/counters").json["outbox"]["lost"] == {}
    assert service.post("forget_user", user="anna").json == {}
    assert service.post("explain", decision=slate["decision"]).status == 404
    left = [event for event in stored(service.engine) if isinstance(event, Outcome)]
    assert not left


WRONG: list[tuple[str, bytes, str]] = [
    ("recommend", b"", "missing required field `user`"),
    ("recommend", b"[]", "Expected `object`"),
    ("recommend", b'{"user": "a", "user_id": 1}', "unknown field `user_id`"),
    ("recommend", b'{"user": 1}', "Expected `str`, got `int` - at `$.user`"),
    ("recommend", b'{"user": "\xff"}', "UTF-8"),
    ("recommend", b'{"user": "\\ud800"}', "JSON"),
    ("recommend", b'\xef\xbb\xbf{"user": "a"}', "JSON"),
    ("recommend", b'{"user": "a", "k": 0}', "k: expected 1 to 1000, found 0"),
    ("recommend", b'{"user": "a", "k": 1e999}', "out of range"),
    ("recommend", b'{"user": "a", "k": ' + b"9" * 9000 + b"}", "out of range"),
    ("recommend", b'{"user": "a", "k": 1.5}', "Expected `int`"),
    ("recommend", b'{"user": "a", "at_most": {"price": 0}}', "at_most: price: expected 1 to"),
    ("recommend", b'{"user": "a", "exclude": "item-1"}', "Expected `array`"),
    ("recommend", b'{"user": "a", "where": {"prize": {"lt": 1}}}', "prize"),
    ("recommend", b'{"user": "a", "pin": {"a": "item-1"}}', "Expected `int`"),
    ("recommend", b'{"user": "a", "diversity": 2}', "diversity"),
    ("observe", b'{"user": "a", "item": ""}', "item: expected 1 to 512 characters"),
    ("reward", b'{"decision": "x", "item": "y", "value": NaN}', "JSON"),
    ("reward", b'{"decision": "x", "item": "y", "value": "1"}', "Expected `float`"),
    ("reward", b'{"decision": "x", "item": "y", "value": true}', "Expected `float`"),
    ("upsert_items", b'{"items": [{"id": "a"}]}', "text"),
    ("upsert_items", b'{"items": [{"a": ' + b"[" * 10**5 + b"]" * 10**5 + b"}]}", "fewer lists"),
    ("similar", b'{"item": "unknown"}', "item: expected an item of the catalog"),
    ("encode", b'{"texts": "one"}', "Expected `array`, got `str`"),
    ("encode", b'{"texts": [' + b'"",' * 1000 + b'""]}', "Expected `array` of length <= 1000"),
    ("flush", b'{"timeout_s": -1}', "timeout_s: expected a number in [0, 3600], found -1"),
    ("search", b'{"query": null}', "Expected `str`, got `null`"),
]


@pytest.mark.parametrize(("name", "body", "expected"), WRONG)
def test_wrong_input_is_one_clear_400(service, name, body, expected):
    """The answer is one sentence in JSON, without a traceback, and the service goes on."""
    answer = service.request("POST", f"/v1/{name}", body)
    assert answer.status == 400, answer.text
    assert expected in answer.error
    assert "\n" not in answer.error
    assert "Traceback" not in answer.error
    assert service.post("recommend", user="anna").status == 200


def test_pages_and_reasons_refer_to_a_slate_by_its_decision(service):
    """Pages repeat nothing until nothing is left, which the last one says; an item says why it is
    there."""
    shown: list[str] = []
    after = None
    while True:
        page = service.post("recommend", user="anna", k=20, after=after).json
        ids = [item["id"] for item in page["items"]]
        if not ids:
            break
        why = service.post("why", decision=page["decision"], item=ids[-1]).json
        assert (why["decision"], why["slot"]) == (page["decision"], len(ids) - 1)
        shown += ids
        after = page["decision"]
    assert len(shown) == len(set(shown)) == 50
    assert page["shortage"]
    assert service.post("recommend", user="anna", after=page["decision"]).json["items"] == []
    assert service.post("recommend", user="anna", after="x").status == 404
    assert service.post("why", decision=after, item="x").status == 400


def test_what_the_slate_does_not_have_cannot_be_rewarded(service):
    """A wrong item or value is 400, an unknown decision or receipt 404."""
    slate = service.post("recommend", user="anna", k=2).json
    decision, item = slate["decision"], slate["items"][0]["id"]
    assert "of the slate's 2" in service.post("reward", decision=decision, item="x", value=1).error
    assert "[-1, 1]" in service.post("reward", decision=decision, item=item, value=1e300).error
    answers = [
        service.post("reward", decision="0" * 32, item=item, value=1),
        service.post("seen", decision="é"),
        service.post("explain", decision=""),
        service.post("receipt", id="x"),
    ]
    for answer in answers:
        assert answer.status == 404
        assert "expected one of the last" in answer.error


def test_paths_and_methods_that_there_are_not(service):
    """An unknown path is 404, a wrong method 405 with the right one, both in JSON."""
    assert "/openapi.json" in service.get("/v1/recommendation").error
    for method, path, right in [("GET", "/v1/recommend", "POST"), ("POST", "/healthz", "GET")]:
        answer = service.request(method, path)
        assert (answer.status, answer.headers["allow"]) == (405, right)
        assert right in answer.error


def test_without_the_token_nothing_is_done(bundle, tmp_path):
    """Each call needs the token; health, readiness, metrics and the document do not."""
    with Engine.open(bundle, tmp_path / "state") as engine:
        service = RunningService(engine, TOKEN)
        assert service.post("recommend", user="anna").status == 200
        for wrong in (None, "", "wrong", TOKEN + "x", "é"):
            service.token = wrong
            for route in ROUTES:
                answer = service.request(route.method, route.path, b"{}")
                assert answer.status == 401
                assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
            assert service.get(path).status == 200
        service.stop()


def test_the_state_of_storage_is_shown(bundle, tmp_path):
    """Without a state folder it recommends, is not ready, and a reward is 503, to be sent again."""
    with Engine.open(bundle) as engine:
        service = RunningService(engine)
        slate = service.post("recommend", user="anna").json
        reward = {"decision": slate["decision"], "item": slate["items"][0]["id"], "value": 1}
        answer = service.post("reward", **reward)
        assert (answer.status, "retry-after" in answer.headers) == (503, True)
        assert "without a state folder" in answer.error
        assert service.post("upsert_items", items=[]).status in (200, 503)
        assert service.get("/readyz").status == 503
        assert "sanderling_storage_fault 1\n" in service.get("/metrics").text
        assert service.post("update").status == 503
        service.stop()


def test_the_metrics_are_prometheus_text(service):
    """Every line is a sample or a type; requests are counted by call and status."""
    service.post("recommend", user="anna")
    service.post("recommend")
    answer = service.get("/metrics")
    sample = re.compile(r'# TYPE \w+ \w+|sanderling_\w+(\{(\w+="[^"]*",?)+\})? [-\d.e+]+')
    for line in answer.text.splitlines():
        assert sample.fullmatch(line), line
    assert 'service_requests_total{call="recommend",status="200"} 1\n' in answer.text
    assert 'service_requests_total{call="recommend",status="400"} 1\n' in answer.text
    assert 'request_seconds_count{call="recommend"} 2\n' in answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_a_state_folder_has_one_service(bundle, tmp_path):
    """A second one with the same folder is refused and told why; the first goes on."""
    with Engine.open(bundle, tmp_path / "state"), pytest.raises(OSError, match="never several"):
        serve(bundle, tmp_path / "state", tmp_path / "engine.sock")
    assert not (tmp_path / "engine.sock").exists()


def test_a_socket_of_a_killed_process_is_replaced_and_no_other(tmp_path):
    """A file that is no socket stays, as does a socket on which somebody listens."""
    path = tmp_path / "engine.sock"
    first = listen_on_path(path, for_everybody=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    with pytest.raises(OSError, match="found one; stop it first"):
        listen_on_path(path, for_everybody=False)
    first.close()
    listen_on_path(path, for_everybody=False).close()
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(OSError, match="another file"):
        listen_on_path(file, for_everybody=False)
    with pytest.raises(OSError, match="expected a path for a socket"):
        listen_on_path(tmp_path / ("x" * 200), for_everybody=False)


def test_a_port_needs_a_token(bundle, tmp_path, monkeypatch):
    """It comes from a file or the environment, and a short one is refused."""
    monkeypatch.delenv("SANDERLING_SERVICE_TOKEN", raising=False)
    with pytest.raises(ValueError, match="any program of this machine can reach a port"):
        serve(bundle, port=0)
    with pytest.raises(typer.BadParameter, match="either --socket or --port"):
        serve(bundle)
    file = tmp_path / "token.txt"
    file.write_text(f"{TOKEN}\n")
    assert _read_token(file, is_needed=True) == TOKEN
    assert _read_token(None, is_needed=False) is None
    monkeypatch.setenv("SANDERLING_SERVICE_TOKEN", "short")
    with pytest.raises(ValueError, match="at least 16"):
        _read_token(None, is_needed=True)


def test_other_options_of_the_engine_are_set_by_name():
    """Numbers and flags are read as such; others are refused in the words of the command."""
    assert _parse(["window_s=60", "adapt=true", "outbox_bytes=70000"]) == {
        "window_s": 60.0,
        "adapt": True,
        "outbox_bytes": 70000,
    }
    for wrong, expected in {
        "windw_s=1": "did you mean `window_s`",
        "adapt=perhaps": "adapt: Expected `bool`",
        "transport=x": "expected an option that a text can set",
        "adapt": "expected NAME=VALUE",
    }.items():
        with pytest.raises(typer.BadParameter, match=re.escape(expected)):
            _parse([wrong])


def test_without_the_extra_the_command_says_what_to_install(bundle, monkeypatch):
    """Where uvicorn is missing the error names the extra."""
    for name in [name for name in sys.modules if name.startswith("sanderling.service")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'sanderling[serve]'")):
        serve(bundle, socket=Path("unused"))
