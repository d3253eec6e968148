"""The network between devices and lab: weather by device, and everything that weather does to a
batch.

A batch may be lost, or its answer; it may come late, twice, after later ones; a captive portal or a
proxy may answer in the lab's place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

from sanderling.events import codec
from sanderling.events.schema import Event
from sanderling.upload.transport import NoNetworkError, Response
from tests.support.fleet.world import World

DAY_S = 86_400.0
PORTALS = [
    Response(200, {"content-type": "text/html"}, b"<html>Welcome to the hotel</html>"),
    Response(200, {}, b""),
    Response(200, {}, b'{"verdicts":[]}'),
    Response(204, {}, b""),
    Response(302, {"location": "http://portal.example"}, b""),
    Response(511, {}, b"log in first"),
]
REFUSALS = [400, 401, 403, 404, 407, 408, 410, 413, 422, 429, 500, 502, 503, 504, 999]
STUBBORN = [0, 0, 400, 413, 422]
WAITS = ["", "0", "7", "120", "-1", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "99999999999"]
WEATHERS = {"good": 5, "lossy": 5, "offline": 2, "portal": 1, "proxy": 2}

Deliver = Callable[[bytes, Mapping[str, str]], Response]


class Network:
    """`deliver` hands a batch to the lab; `left` maps each event that ever left a device to what it
    was, `delayed` are those of which a copy came late."""

    def __init__(self, world: World, deliver: Deliver) -> None:
        self.world, self.deliver = world, deliver
        self.left: dict[str, Event] = {}
        self.delayed: set[str] = set()
        self.healed = False

    def heal(self) -> None:
        self.healed = True


class Line:
    """One device's connection. `dead` returns whether the device crashed; `dies` crashes it."""

    engine: Any = None

    def __init__(
        self, network: Network, name: str, dead: Callable[[], bool], dies: Callable[[], None]
    ) -> None:
        self.network, self.name, self.dead, self.dies = network, name, dead, dies
        self.rng = network.world.chance(f"{name}/network")
        self.weather, self.until, self.cap, self.stubborn = "good", 0, 0, 0

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        if self.dead():
            raise ConnectionAbortedError
        for line in codec.unpack(body):
            event = codec.decode(line)
            self.network.left.setdefault(event.id, event)
        self._change()
        world, weather = self.network.world, "good" if self.network.healed else self.weather
        world.take(self.rng.uniform(0.01, 1.0))
        try:
            answer = getattr(self, f"_{weather}")(body, headers)
        except OSError as trouble:
            world.note(self.name, "posts", crc32(body), weather, type(trouble).__name__)
            raise
        world.take(self.rng.uniform(0.01, 1.0))
        world.note(self.name, "posts", crc32(body), weather, answer.status, crc32(answer.body))
        return answer

    def _change(self) -> None:
        world = self.network.world
        if world.now >= self.until:
            self.weather = self.rng.choices(list(WEATHERS), list(WEATHERS.values()))[0]
            longest = 14 * DAY_S if self.weather == "offline" else DAY_S
            self.until = world.now + round(1000 * longest * self.rng.random() ** 3)
            self.cap, self.stubborn = self.rng.randint(1500, 6000), self.rng.choice(STUBBORN)

    def _good(self, body: bytes, headers: Mapping[str, str]) -> Response:
        return self.network.deliver(body, headers)

    def _offline(self, body: bytes, headers: Mapping[str, str]) -> Response:
        raise self.rng.choice([ConnectionRefusedError, NoNetworkError])

    def _portal(self, body: bytes, headers: Mapping[str, str]) -> Response:
        return self.rng.choice(PORTALS)

    def _proxy(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Answer as a proxy: now and then, beyond its size cap, or always."""
        if self.stubborn:
            return Response(self.stubborn, {}, b"<html>proxy</html>")
        if self.rng.random() < 0.5:
            wait = self.rng.choice(WAITS)
            return Response(
                self.rng.choice(REFUSALS),
                {"retry-after": wait} if wait else {},
                b"<html>proxy</html>",
            )
        return (
            Response(413, {}, b"too large") if len(body) > self.cap else self._good(body, headers)
        )

    def _lossy(self, body: bytes, headers: Mapping[str, str]) -> Response:
        fate = self.rng.choice(
            ["lost", "deaf", "late", "twice", "torn", "killed", "killed after", "well", "well"]
        )
        if fate in ("late", "twice"):
            self._send_later(body, headers)
        if fate == "killed":
            self.dies()
        if fate in ("lost", "late", "killed"):
            raise TimeoutError
        answer = self._good(body, headers)
        if fate == "killed after":
            self.dies()
        if fate in ("deaf", "killed after"):
            raise TimeoutError
        return (
            Response(answer.status, answer.headers, answer.body[:-9]) if fate == "torn" else answer
        )

    def _send_later(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Deliver a copy after up to a day; its answer is dropped."""
        self.network.delayed.update(codec.decode(line).id for line in codec.unpack(body))

        def arrive() -> None:
            try:
                status = self.network.deliver(body, headers).status
            except OSError as trouble:
                status = type(trouble).__name__
            self.network.world.note(self.name, "copy arrives", crc32(body), status)

        for _ in range(self.rng.randint(1, 2)):
            self.network.world.after(DAY_S * self.rng.random() ** 4, arrive)
