"""What pages need of the collector: gzip, and permission to post from other origins."""

from __future__ import annotations

import gzip
import http.client
import zlib
from collections.abc import Iterator
from functools import partial

import pytest

from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling_trainer.collector.cross_origin import cross_origin
from sanderling_trainer.collector.limits import Limits
from sanderling_trainer.event_log.reader import read_segments
from tests.support.servers import HEADERS, Server, events, packed

pytestmark = pytest.mark.lab

SHOP = "https://shop.example"
# Without the time, which would differ between the workers that collect these tests.
gzipped = partial(gzip.compress, mtime=0)
GZIP = HEADERS | {"content-encoding": "gzip"}
LINES = b"\n".join(codec.encode(event) for event in events(3))


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    server = Server(tmp_path / "store", origins=[SHOP, "http://localhost:5173"])
    yield server
    server.stop()


def ask(server: Server, method: str, **headers: str) -> tuple[int, dict[str, str]]:
    """Send a request without a body; return its status and headers, their names in lower case."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, "/v1/events", headers=named)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}


def preflight(server: Server, origin: str) -> tuple[int, dict[str, str]]:
    """Ask as a browser does before it posts."""
    return ask(
        server,
        "OPTIONS",
        origin=origin,
        access_control_request_method="POST",
        access_control_request_headers="authorization,content-encoding,content-type,sent-at",
    )


def test_a_gzip_batch_is_stored_and_known_again_as_zstd(server):
    """Both encodings carry the same lines: what came as gzip is a duplicate as zstd."""
    status, _, content = server.post(gzipped(LINES), GZIP)
    assert status == 200
    assert [row["verdict"] for row in content["verdicts"]] == ["ok"] * 3
    assert {row.verdict for row in server.send(*events(3))} == {"duplicate"}
    log = read_segments(str(server.folder))
    assert [event for stored in log.events.values() for event in stored] == events(3)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (gzipped(LINES)[:-1], 400),
        (gzipped(LINES) + b"x", 400),
        (gzipped(LINES) + gzipped(LINES), 400),
        (gzipped(LINES)[:-8] + bytes(8), 400),
        (zlib.compress(LINES), 400),
        (b"", 400),
        (packed(*events(1)), 400),
        (gzipped(bytes(wire.MAX_BATCH_BYTES + 1)), 413),
        (gzipped(bytes(2**28)), 413),
        (gzipped(b"1\n" * (wire.MAX_BATCH_EVENTS + 1)), 413),
        (bytes(Limits().body_bytes + 1), 413),
    ],
)
def test_a_bad_gzip_body_is_refused(server, body, expected):
    """A body that is cut off, altered, too large or of another format stores nothing."""
    status, _, content = server.post(body, GZIP)
    assert status == expected
    assert "expected" in content["error"]
    assert server.files("*") == []


def test_the_largest_batch_of_gzip_is_taken(server):
    """Exactly as many bytes as are allowed are no fault of their number."""
    lines = LINES + b"\n" * (wire.MAX_BATCH_BYTES - len(LINES))
    assert server.post(gzipped(lines), GZIP)[0] == 200


def test_a_page_of_an_allowed_origin_may_post(server):
    """The preflight names origin, method and headers, and the page may read each response."""
    status, headers = preflight(server, SHOP)
    assert status == 200
    assert headers["access-control-allow-origin"] == SHOP
    assert headers["access-control-allow-methods"] == "POST"
    allowed = headers["access-control-allow-headers"].lower()
    assert {"authorization", "content-encoding", "content-type", "sent-at"} <= set(
        allowed.split(", ")
    )
    assert int(headers["access-control-max-age"]) > 0

    for more, expected in [({}, 200), ({"authorization": "Bearer no"}, 401)]:
        status, headers, _ = server.post(gzipped(LINES), GZIP, origin=SHOP, **more)
        assert status == expected
        assert headers["access-control-allow-origin"] == SHOP
        assert headers["access-control-expose-headers"] == "retry-after"
        assert "access-control-allow-credentials" not in headers
        assert "origin" in headers["vary"].lower()


def test_a_page_of_another_origin_may_not(server):
    """Its preflight is refused, and a browser gives it no response to read."""
    for origin in ("https://shop.example.evil", "http://shop.example", "null"):
        status, headers = preflight(server, origin)
        assert status == 400
        assert "access-control-allow-origin" not in headers


def test_without_origins_nothing_is_said_to_pages(tmp_path):
    """It is off by default: no preflight is answered, and devices see the same as before."""
    server = Server(tmp_path / "store")
    status, headers = preflight(server, SHOP)
    assert status == 405
    assert not any(name.startswith("access-control") for name in headers)
    status, headers, _ = server.post(gzipped(LINES), GZIP, origin=SHOP)
    assert status == 200
    assert not any(name.startswith("access-control") for name in headers)
    server.stop()


def test_other_paths_are_not_opened_to_pages(server):
    """Metrics and health stay for those who run the collector."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/metrics", headers={"origin": SHOP})
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.getheader("access-control-allow-origin") is None
    connection.close()


def test_any_origin_may_be_allowed(tmp_path):
    """`*` lets the pages of all origins post; the token still keeps others out."""
    server = Server(tmp_path / "store", origins=["*"])
    assert preflight(server, "https://anything.example")[1]["access-control-allow-origin"] == "*"
    server.stop()


@pytest.mark.parametrize(
    "origin",
    [
        "shop.example",
        "https://shop.example/",
        "https://Shop.example/x",
        "://x",
        "https://a@b",
        "",
    ],
)
def test_what_is_no_origin_is_refused_at_the_start(origin):
    """A path or a missing scheme would never match what browsers send."""
    with pytest.raises(ValueError, match="expected an origin such as"):
        cross_origin([origin])


@pytest.mark.parametrize("origin", ["https://localhost", "capacitor://localhost", "http://x:8080"])
def test_origins_of_pages_and_of_apps_are_taken(origin):
    """Shells of apps have schemes of their own."""
    assert len(cross_origin([origin])) == 1
