"""The way to the collector, over real sockets: whatever the server does, an answer or an OSError, in time."""

from __future__ import annotations

import errno
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
import urllib3

from sanderling.upload.transport import MAX_ANSWER_BYTES, HttpTransport, NoNetworkError
from tests.support.waiting import wait_until

HEAD = b"HTTP/1.1 200 OK\r\nX-Mixed-Case: yes\r\n"
TIMEOUT_S = 0.3


class Server:
    """Answers each connection with what `answer` does to the socket; remembers the requests."""

    def __init__(
        self, answer: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None
    ) -> None:
        self.answer, self.tls, self.requests = answer, tls, []
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
            self.answer(connection)

    def transport(self, token: str | None = None, timeout_s: float = 10.0) -> HttpTransport:
        return HttpTransport(f"http://127.0.0.1:{self.port}/v1/", token, timeout_s)


@pytest.fixture
def serving() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def build(*what) -> Server:
        servers.append(Server(*what))
        return servers[-1]

    yield build
    for server in servers:
        server.listener.close()


def whole(body: bytes, *headers: bytes) -> Callable[[socket.socket], None]:
    lines = b"".join(header + b"\r\n" for header in headers)
    return lambda connection: connection.sendall(
        HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body
    )


def whole_and(body: bytes, stray: bytes) -> Callable[[socket.socket], None]:
    answers = b"".join(
        HEAD + b"Content-Length: %d\r\n\r\n" % len(one) + one for one in (body, stray)
    )
    return lambda connection: connection.sendall(answers)


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


def head_a_byte_at_a_time(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"X: ")
    for _ in range(1000):
        connection.sendall(b"x")
        time.sleep(0.05)


def status_a_byte_at_a_time(connection: socket.socket) -> None:
    for _ in range(100):
        for byte in b"HTTP/1.1 100 Continue\r\n\r\n":
            connection.sendall(bytes([byte]))
            time.sleep(0.02)


def endless(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"\r\n")
    for _ in range(64):
        connection.sendall(b"x" * 2**16)


TROUBLE = {
    "reset before the answer": reset,
    "reset in the body": reset_in_the_body,
    "half open": half_open,
    "a byte at a time": a_byte_at_a_time,
    "the head a byte at a time": head_a_byte_at_a_time,
    "heads without an end": status_a_byte_at_a_time,
    "cut short": lambda connection: connection.sendall(HEAD + b"Content-Length: 10\r\n\r\nab"),
    "endless": endless,
    "too long": whole(b"x" * (MAX_ANSWER_BYTES + 1)),
    "a zip bomb": whole(gzip.compress(bytes(2**26)), b"Content-Encoding: gzip"),
    "gzip that is none": whole(b"plain", b"Content-Encoding: gzip"),
    "not HTTP": lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "endless headers": lambda connection: connection.sendall(
        HEAD + b"".join(b"X: y\r\n" for _ in range(10**5))
    ),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_is_an_oserror_in_time(serving, name):
    """Whatever goes wrong on the way is an OSError, long before servers that take a minute (bad inputs 89, 92)."""
    transport = serving(TROUBLE[name]).transport(timeout_s=TIMEOUT_S)
    started = time.monotonic()
    with pytest.raises(OSError, match="127"):
        transport.post(b"body", {})
    assert time.monotonic() - started < 2 * TIMEOUT_S + 5


SLOW = [a_byte_at_a_time, head_a_byte_at_a_time, status_a_byte_at_a_time]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def trusting(server: Server, authority: trustme.CA, timeout_s: float) -> HttpTransport:
    """Return a transport over TLS that knows who signed the server's certificate."""
    transport = HttpTransport(f"https://127.0.0.1:{server.port}/v1", None, timeout_s)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    transport._pool.connection_pool_kw["ssl_context"] = context
    return transport


@pytest.mark.parametrize("answer", SLOW)
def test_a_slow_answer_is_over_in_time_over_tls_too(serving, authority, answer):
    """Over TLS as well an answer that comes byte by byte ends as an OSError, not when its server is tired."""
    transport = trusting(serving(answer, server_context(authority)), authority, TIMEOUT_S)
    started = time.monotonic()
    with pytest.raises(OSError, match="127"):
        transport.post(b"body", {})
    assert time.monotonic() - started < 2 * TIMEOUT_S + 5


def slow_reader(connection: socket.socket) -> None:
    """Take a little now and then, and never all."""
    for _ in range(200):
        connection.recv(2**14)
        time.sleep(0.05)


@pytest.mark.parametrize("tls", [False, True])
def test_a_body_that_is_taken_slowly_is_over_in_time(serving, authority, tls):
    """A server that takes a batch little by little does not hold the device for longer."""
    server = serving(slow_reader, *([server_context(authority)] if tls else []))
    transport = (
        trusting(server, authority, TIMEOUT_S) if tls else server.transport(timeout_s=TIMEOUT_S)
    )
    started = time.monotonic()
    with pytest.raises(OSError, match="127"):
        transport.post(bytes(2**24), {})
    assert time.monotonic() - started < 2 * TIMEOUT_S + 5


def test_posts_over_tls_share_a_connection_and_leave_no_thread(serving, authority):
    """Three posts go out on one connection; when it is closed no thread is left behind."""

    def three(connection: socket.socket) -> None:
        for _ in range(3):
            whole(b"xx")(connection)
            connection.recv(2**16)

    server = serving(three, server_context(authority))
    before = set(threading.enumerate())
    transport = trusting(server, authority, 10.0)
    assert [transport.post(b"", {}).body for _ in range(3)] == [b"xx"] * 3
    assert len(server.requests) == 1
    transport._pool.clear()
    assert wait_until(lambda: set(threading.enumerate()) <= before)


def test_one_post_goes_out_with_the_token(serving):
    """The batch goes to url/events with the bearer token and the headers; the answer's names are in lower case."""
    server = serving(whole(b"xx"))
    response = server.transport("secret").post(b"body", {"sent-at": "5"})
    assert (response.status, response.body, response.headers["x-mixed-case"]) == (200, b"xx", "yes")
    [request] = server.requests
    assert request.startswith(b"POST /v1/events HTTP/1.1\r\n")
    assert b"authorization: Bearer secret\r\n" in request
    assert b"sent-at: 5\r\n" in request


def test_a_redirect_is_an_answer(serving):
    """A redirect is not followed: the events and the token stay with the collector that was named."""
    server = serving(
        lambda connection: connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n")
    )
    assert server.transport("secret").post(b"", {}).status == 302
    assert len(server.requests) == 1


def test_two_answers_to_one_post_are_not_mixed_up(serving):
    """A second answer behind the first one is not taken for the answer to the next post, whatever comes of that."""
    transport = serving(whole_and(b"first", b"stray")).transport()
    assert transport.post(b"", {}).body == b"first"
    with suppress(OSError):
        assert transport.post(b"", {}).body == b"first"


def test_the_way_back_after_trouble_is_a_new_connection(serving):
    """After a time-out the next post does not read the late answer of the one before."""
    given_up, sent = threading.Event(), threading.Event()

    def late(connection: socket.socket) -> None:
        given_up.wait(20)
        with suppress(OSError):
            whole(b"late")(connection)
        sent.set()

    answers = iter([late, whole(b"right")])
    transport = serving(lambda connection: next(answers)(connection)).transport(timeout_s=TIMEOUT_S)
    with pytest.raises(OSError, match="timed out"):
        transport.post(b"", {})
    given_up.set()
    assert sent.wait(10)
    transport._timeout_s = 10
    transport._pool.connection_from_url(transport._url).timeout = urllib3.Timeout(total=10)
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
def test_a_url_that_is_none_is_refused_at_once(url):
    """A collector's URL that could never work is a ValueError when it is given, not silence for ever (bad input 79)."""
    with pytest.raises(ValueError, match="collector: expected a URL"):
        HttpTransport(url, None)


@pytest.mark.parametrize("token", ["two\r\nlines", "sécret", "\0"])
def test_a_token_that_is_none_is_refused_at_once(token):
    """A token that no header can carry is a ValueError when it is given."""
    with pytest.raises(ValueError, match="token: expected printable ASCII"):
        HttpTransport("https://x/v1", token)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "http://[::1]:9/v1", "http://no.such.host.invalid/v1"]
)
def test_no_server_is_an_oserror(url):
    """A refused connection, and a name that nobody knows, are an OSError (bad input 93)."""
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


def test_a_device_without_a_network_knows_it():
    """Where there is no route, and nobody who could be asked for a name, the trouble is the device's own."""
    offline = ["unshare", "--map-root-user", "--net"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*offline, "true"], check=False).returncode
    ):
        pytest.skip("needs unshare, and the right to make a network namespace")
    urls = ["http://192.0.2.1/v1", "http://[2001:db8::1]/v1", "https://collector.example/v1"]
    told = subprocess.run(
        [*offline, sys.executable, "-c", POST, *urls], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["offline"] * len(urls)


def test_a_collector_that_refuses_is_no_lack_of_a_network():
    """A refused connection is an answer: somebody was reached."""
    with pytest.raises(OSError, match="refused") as trouble:
        HttpTransport("http://127.0.0.1:9", None, timeout_s=0.5).post(b"", {})
    assert not isinstance(trouble.value, NoNetworkError)


@pytest.mark.parametrize(
    "cause",
    [
        OSError(errno.ENETUNREACH, "no route to one of its addresses, as on a device without IPv6"),
        socket.gaierror(socket.EAI_NONAME, "a name that somebody knows not to exist"),
        OSError(errno.ETIMEDOUT, "nobody answers"),
        None,
    ],
)
def test_what_proves_no_lack_of_a_network(cause):
    """While any address of the collector has a route, trouble on the way to it is not the device's."""
    assert not HttpTransport("http://127.0.0.1:9", None)._offline(cause)


def test_a_server_without_tls_is_an_oserror(serving):
    """https to a server that does not speak it is an OSError, and nothing was sent in the clear."""
    server = serving(whole(b"xx"))
    with pytest.raises(OSError, match="https://"):
        HttpTransport(f"https://127.0.0.1:{server.port}", "secret", TIMEOUT_S).post(b"body", {})
    assert not any(b"secret" in request for request in server.requests)


def test_a_certificate_that_nobody_signed_is_an_oserror(serving):
    """A certificate of an unknown authority is refused, and the token does not leave (bad input 93)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = serving(whole(b"xx"), context)
    with pytest.raises(OSError, match="certificate"):
        HttpTransport(f"https://127.0.0.1:{server.port}", "secret").post(b"", {})
    assert server.requests == []
