"""The simulated network: each device has a changing connection with faults of its own.

A batch or its answer may be lost; a batch may arrive late, twice or out of order; a captive portal
or a proxy may answer in the server's place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

from sanderling.events import codec
from sanderling.events.schema import Event
from sanderling.upload.transport import NoNetworkError, Response
from tests.support.fleet.simulation import Simulation

DAY_S = 86_400.0
PORTAL_ANSWERS = [
    Response(200, {"content-type": "text/html"}, b"<html>Welcome to the hotel</html>"),
    Response(200, {}, b""),
    Response(200, {}, b'{"verdicts":[]}'),
    Response(204, {}, b""),
    Response(302, {"location": "http://portal.example"}, b""),
    Response(511, {}, b"log in first"),
]
ERROR_STATUSES = [400, 401, 403, 404, 407, 408, 410, 413, 422, 429, 500, 502, 503, 504, 999]
FIXED_STATUSES = [0, 0, 400, 413, 422]  # 0: the proxy passes requests on
RETRY_AFTER = ["", "0", "7", "120", "-1", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "99999999999"]
# With how often each occurs; a method of `Connection` has the name.
CONDITIONS = {"good": 5, "lossy": 5, "offline": 2, "portal": 1, "proxy": 2}
OUTCOMES = [
    "lost",
    "answer lost",
    "late",
    "twice",
    "answer cut",
    "crash before",
    "crash after",
    "delivered",
    "delivered",
]

Deliver = Callable[[bytes, Mapping[str, str]], Response]


class Network:
    """What all connections share. `deliver` hands a batch to the server.

    `sent_events` are the events that ever left a device, by id; `delayed_ids` are the ids of those
    of which a copy arrived late.
    """

    def __init__(self, simulation: Simulation, deliver: Deliver) -> None:
        self.simulation = simulation
        self.deliver = deliver
        self.sent_events: dict[str, Event] = {}
        self.delayed_ids: set[str] = set()
        self.is_reliable = False

    def clear_faults(self) -> None:
        self.is_reliable = True


class Connection:
    """The transport of one device. `has_crashed` tells of its device; `crash` crashes it."""

    engine: Any = None

    def __init__(
        self,
        network: Network,
        name: str,
        has_crashed: Callable[[], bool],
        crash: Callable[[], None],
    ) -> None:
        self.network = network
        self.name = name
        self.has_crashed = has_crashed
        self.crash = crash
        self.rng = network.simulation.random_stream(f"{name}/network")
        self.condition = "good"
        self.changes_at_ms = 0
        self.max_body = 0
        self.fixed_status = 0

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        if self.has_crashed():
            raise ConnectionAbortedError
        for line in codec.unpack(body):
            event = codec.decode(line)
            self.network.sent_events.setdefault(event.id, event)
        self._update_condition()
        simulation = self.network.simulation
        condition = "good" if self.network.is_reliable else self.condition
        simulation.advance(self.rng.uniform(0.01, 1.0))
        try:
            answer = getattr(self, f"_{condition}")(body, headers)
        except OSError as error:
            simulation.record(self.name, "posts", crc32(body), condition, type(error).__name__)
            raise
        simulation.advance(self.rng.uniform(0.01, 1.0))
        simulation.record(
            self.name, "posts", crc32(body), condition, answer.status, crc32(answer.body)
        )
        return answer

    def _update_condition(self) -> None:
        simulation = self.network.simulation
        if simulation.now >= self.changes_at_ms:
            self.condition = self.rng.choices(list(CONDITIONS), list(CONDITIONS.values()))[0]
            longest = 14 * DAY_S if self.condition == "offline" else DAY_S
            self.changes_at_ms = simulation.now + round(1000 * longest * self.rng.random() ** 3)
            self.max_body = self.rng.randint(1500, 6000)
            self.fixed_status = self.rng.choice(FIXED_STATUSES)

    def _good(self, body: bytes, headers: Mapping[str, str]) -> Response:
        return self.network.deliver(body, headers)

    def _offline(self, body: bytes, headers: Mapping[str, str]) -> Response:
        raise self.rng.choice([ConnectionRefusedError, NoNetworkError])

    def _portal(self, body: bytes, headers: Mapping[str, str]) -> Response:
        return self.rng.choice(PORTAL_ANSWERS)

    def _proxy(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Answer as a proxy: always, at random, or where the body is too large for it."""
        if self.fixed_status:
            return Response(self.fixed_status, {}, b"<html>proxy</html>")
        if self.rng.random() < 0.5:
            wait = self.rng.choice(RETRY_AFTER)
            return Response(
                self.rng.choice(ERROR_STATUSES),
                {"retry-after": wait} if wait else {},
                b"<html>proxy</html>",
            )
        if len(body) > self.max_body:
            return Response(413, {}, b"too large")
        return self._good(body, headers)

    def _lossy(self, body: bytes, headers: Mapping[str, str]) -> Response:
        outcome = self.rng.choice(OUTCOMES)
        if outcome in ("late", "twice"):
            self._send_later(body, headers)
        if outcome == "crash before":
            self.crash()
        if outcome in ("lost", "late", "crash before"):
            raise TimeoutError
        answer = self._good(body, headers)
        if outcome == "crash after":
            self.crash()
        if outcome in ("answer lost", "crash after"):
            raise TimeoutError
        if outcome == "answer cut":
            return Response(answer.status, answer.headers, answer.body[:-9])
        return answer

    def _send_later(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Deliver one or two copies within a day; their answers are dropped."""
        self.network.delayed_ids.update(codec.decode(line).id for line in codec.unpack(body))

        def arrive() -> None:
            try:
                status = self.network.deliver(body, headers).status
            except OSError as error:
                status = type(error).__name__
            self.network.simulation.record(self.name, "copy arrives", crc32(body), status)

        for _ in range(self.rng.randint(1, 2)):
            self.network.simulation.schedule(DAY_S * self.rng.random() ** 4, arrive)
