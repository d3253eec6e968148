"""`HttpTransport` over real sockets: whatever the server does, a response or an error, in time."""

from __future__ import annotations

import gzip
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import trustme

from sanderling.upload.transport import (
    MAX_RESPONSE_BYTES,
    HttpTransport,
    NoNetworkError,
)
from tests.support.waiting import wait_until

HEAD = b"HTTP/1.1 200 OK\r\nX-Mixed-Case: yes\r\n"
TIMEOUT_S = 0.3


class Server:
    """Lets `respond` do what it likes to the socket of each connection; records the requests."""

    def __init__(
        self, respond: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None
    ) -> None:
        self.respond = respond
        self.tls = tls
        self.requests: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            self.requests.append(connection.recv(2**16))
            self.respond(connection)

    def transport(self, token: str | None = None, timeout_s: float = 10.0) -> HttpTransport:
        return HttpTransport(f"http://127.0.0.1:{self.port}/v1/", token, timeout_s)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*arguments) -> Server:
        servers.append(Server(*arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.listener.close()


def complete(body: bytes, *headers: bytes) -> Callable[[socket.socket], None]:
    lines = b"".join(header + b"\r\n" for header in headers)
    return lambda connection: connection.sendall(
        HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body
    )


def two_responses(body: bytes, stray: bytes) -> Callable[[socket.socket], None]:
    responses = b"".join(
        HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content for content in (body, stray)
    )
    return lambda connection: connection.sendall(responses)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def reset_in_the_body(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Length: 10\r\n\r\nab")
    time.sleep(0.05)
    reset(connection)


def half_open(connection: socket.socket) -> None:
    connection.recv(1)


def a_byte_at_a_time(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
    for _ in range(1000):
        connection.sendall(b"x")
        time.sleep(0.05)


def endless(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"\r\n")
    for _ in range(64):
        connection.sendall(b"x" * 2**16)


FAULTS = {
    "reset before the response": reset,
    "reset in the body": reset_in_the_body,
    "half open": half_open,
    "a byte at a time": a_byte_at_a_time,
    "cut short": lambda connection: connection.sendall(HEAD + b"Content-Length: 10\r\n\r\nab"),
    "endless": endless,
    "too long": complete(b"x" * (MAX_RESPONSE_BYTES + 1)),
    "a zip bomb": complete(gzip.compress(bytes(2**26)), b"Content-Encoding: gzip"),
    "a body that is not gzip": complete(b"plain", b"Content-Encoding: gzip"),
    "not HTTP": lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "endless headers": lambda connection: connection.sendall(
        HEAD + b"".join(b"X: y\r\n" for _ in range(10**5))
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_an_oserror_in_time(serve, name):
    """Every fault of the server or the network is an `OSError` soon after twice the time-out."""
    transport = serve(FAULTS[name]).transport(timeout_s=TIMEOUT_S)
    started = time.monotonic()
    with pytest.raises(OSError, match="127"):
        transport.post(b"body", {})
    assert time.monotonic() - started < 2 * TIMEOUT_S + 5


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def trusting(server: Server, authority: trustme.CA, timeout_s: float) -> HttpTransport:
    """Return a transport over TLS that trusts the authority behind the server's certificate."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return HttpTransport(f"https://127.0.0.1:{server.port}/v1", None, timeout_s, context)


def test_a_slow_response_over_tls_ends_in_time(serve, authority):
    """A response that comes byte by byte over TLS is an `OSError` soon after twice the time-out."""
    transport = trusting(serve(a_byte_at_a_time, server_context(authority)), authority, TIMEOUT_S)
    started = time.monotonic()
    with pytest.raises(OSError, match="127"):
        transport.post(b"body", {})
    assert time.monotonic() - started < 2 * TIMEOUT_S + 5


def test_posts_over_tls_share_a_connection_and_leave_no_thread(serve, authority):
    """Three posts use one connection; when the transport is closed no thread is left."""

    def three(connection: socket.socket) -> None:
        for _ in range(3):
            complete(b"xx")(connection)
            connection.recv(2**16)

    server = serve(three, server_context(authority))
    before = set(threading.enumerate())
    transport = trusting(server, authority, 10.0)
    assert [transport.post(b"", {}).body for _ in range(3)] == [b"xx"] * 3
    assert len(server.requests) == 1
    transport.close()
    assert wait_until(lambda: set(threading.enumerate()) <= before)


def test_a_post_has_the_token_and_the_headers(serve):
    """A post goes to url/events with its headers; the response's header names are in lower
    case. White space around the token, such as a file's line end, is not sent.
    """
    server = serve(complete(b"xx"))
    response = server.transport(" secret\n").post(b"body", {"sent-at": "5"})
    assert (response.status, response.body, response.headers["x-mixed-case"]) == (200, b"xx", "yes")
    [request] = server.requests
    assert request.startswith(b"POST /v1/events HTTP/1.1\r\n")
    assert b"authorization: Bearer secret\r\n" in request
    assert b"sent-at: 5\r\n" in request


def test_a_redirect_is_not_followed(serve):
    """A redirect is returned as it is: events and token go to the named collector only."""
    server = serve(
        lambda connection: connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n")
    )
    assert server.transport("secret").post(b"", {}).status == 302
    assert len(server.requests) == 1


def test_a_stray_second_response_is_not_used(serve):
    """A second response behind the first is never taken for the response to the next post."""
    transport = serve(two_responses(b"first", b"stray")).transport()
    assert transport.post(b"", {}).body == b"first"
    with suppress(OSError):
        assert transport.post(b"", {}).body == b"first"


def test_a_post_after_a_timeout_uses_a_new_connection(serve):
    """After a time-out the next post does not read the late response to the one before."""
    timed_out = threading.Event()
    sent = threading.Event()

    def late(connection: socket.socket) -> None:
        timed_out.wait(20)
        with suppress(OSError):
            complete(b"late")(connection)
        sent.set()

    responses = iter([late, complete(b"right")])
    transport = serve(lambda connection: next(responses)(connection)).transport(timeout_s=1.0)
    with pytest.raises(OSError, match="timed out"):
        transport.post(b"", {})
    timed_out.set()
    assert sent.wait(10)
    assert transport.post(b"", {}).body == b"right"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "rewards.example/v1",
        "",
        "https://",
        "ftp://x/",
        "https://x/?a=b",
        "https://name:word@x/v1",
    ],
)
def test_an_impossible_url_is_refused_at_once(url):
    """A URL that can never work is a `ValueError` when it is given, not a failure for ever."""
    with pytest.raises(ValueError, match="collector: expected a URL"):
        HttpTransport(url, None)


@pytest.mark.parametrize("token", ["two\r\nlines", "sécret", "\0", "", " \n"])
def test_an_impossible_token_is_refused_at_once(token):
    """A token that no header can carry is a `ValueError` when it is given."""
    with pytest.raises(ValueError, match="token: expected printable ASCII"):
        HttpTransport("https://x/v1", token)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "http://[::1]:9/v1", "http://no.such.host.invalid/v1"]
)
def test_no_server_is_an_oserror(url):
    """A refused connection, and a host name that does not exist, are an `OSError`."""
    with pytest.raises(OSError, match="http://"):
        HttpTransport(url, None, timeout_s=0.5).post(b"", {})


POST = """
import sys
from sanderling.upload.transport import HttpTransport, NoNetworkError
for url in sys.argv[1:]:
    try:
        HttpTransport(url, None, timeout_s=0.5).post(b"", {})
    except NoNetworkError:
        print("offline")
    except OSError as error:
        print(error)
"""


def test_a_device_without_a_network_is_offline():
    """Where the collector's name cannot be looked up, the error is `NoNetworkError`."""
    offline = ["unshare", "--map-root-user", "--net"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*offline, "true"], check=False).returncode
    ):
        pytest.skip("needs unshare, and the right to make a network namespace")
    done = subprocess.run(
        [*offline, sys.executable, "-c", POST, "https://collector.example/v1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["offline"]


def test_a_refused_connection_is_not_offline():
    """A refused connection is a sign of a network: a host was reached."""
    with pytest.raises(OSError, match="refused") as raised:
        HttpTransport("http://127.0.0.1:9", None, timeout_s=0.5).post(b"", {})
    assert not isinstance(raised.value, NoNetworkError)


def test_a_server_without_tls_is_an_oserror(serve):
    """https to a server without TLS is an `OSError`, and nothing is sent in the clear."""
    server = serve(complete(b"xx"))
    with pytest.raises(OSError, match="https://"):
        HttpTransport(f"https://127.0.0.1:{server.port}", "secret", TIMEOUT_S).post(b"body", {})
    assert not any(b"secret" in request for request in server.requests)


def test_an_untrusted_certificate_is_an_oserror(serve):
    """A certificate of an unknown authority is refused, and the token is not sent."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = serve(complete(b"xx"), context)
    with pytest.raises(OSError, match="certificate"):
        HttpTransport(f"https://127.0.0.1:{server.port}", "secret").post(b"", {})
    assert server.requests == []
