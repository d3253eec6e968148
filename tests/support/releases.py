"""A release repository with a server that can misbehave, and one device that updates from it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from tuf.api.metadata import Metadata, Root, Targets

from sanderling import Engine, UpdateError
from sanderling.releases.slots import Slots
from sanderling.releases.updater import UpdateRequest, fetch
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.releases import http_server
from sanderling_trainer.releases.create import create_repository
from sanderling_trainer.releases.keys import KeyFolder
from sanderling_trainer.releases.metadata import Lifetimes
from sanderling_trainer.releases.repository import Published, ReleaseRepository
from tests.support.bundles import reseal
from tests.support.servers import PromptServer
from tests.support.waiting import wait_until

ITEMS = "items.safetensors"
PASSWORD = "correct horse battery"


def root_keys_in(folder: Path) -> KeyFolder:
    """Return the root keys beside the online keys of a test."""
    return KeyFolder(folder / "root-keys", lambda: PASSWORD)


def make_repository(folder: Path, keys: str = "keys", **options: Any) -> ReleaseRepository:
    """Create `folder/repository`, with its online keys in `folder/<keys>`."""
    store = LocalObjectStore(folder / "repository")
    online = KeyFolder(folder / keys)
    create_repository(store, online, root_keys_in(folder / f"of-{keys}"), **options)
    return ReleaseRepository(store, online)


def expiring(days: float) -> Lifetimes:
    """Return lifetimes of so many days for what is signed on line."""
    return Lifetimes(targets=days, snapshot=days, timestamp=days)


class ReleaseServer:
    """A repository over loopback; records each request, and answers some of them otherwise."""

    def __init__(self, repository: Path) -> None:
        self.requests: list[str] = []
        self.overrides: dict[str, ASGIApp] = {}  # by the end of the path
        self.files = http_server.app(repository)

        config = uvicorn.Config(self, port=0, lifespan="off", log_level="critical")
        self._server = PromptServer(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        assert wait_until(lambda: self._server.started)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.requests.append(path)
        overrides = (app for end, app in self.overrides.items() if path.endswith(end))
        await next(overrides, self.files)(scope, receive, send)

    def downloads(self) -> Counter[str]:
        """Return how often each file of a bundle was requested since the last call."""
        names = Counter(
            path.rsplit("/", 1)[-1].split(".", 1)[1]
            for path in self.requests
            if "/targets/" in path
        )
        self.requests.clear()
        return names

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)


def respond(
    body: bytes,
    length: int | None = None,
    times: int = 1,
    before_end: Callable[[], object] = bool,
) -> ASGIApp:
    """Return an application that sends a body `times` over, whatever length it announces.

    `before_end` is called before the response ends.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(times):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        before_end()
        await send({"type": "http.response.body", "body": b""})

    return app


async def never_respond(scope: Scope, receive: Receive, send: Send) -> None:
    """Send nothing until the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)


class ReleaseWorld:
    """A repository with its keys and its server, and one device.

    `folder` has bundles by name beside the repository: at first `one` and `two`, releases 1 and 2,
    of which the first is published.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.keys = folder / "keys"
        self.root_keys = root_keys_in(folder / "of-keys")
        self.releases = ReleaseRepository(LocalObjectStore(self.repository), KeyFolder(self.keys))
        self.root = (self.repository / "metadata" / "1.root.json").read_bytes()
        self.server = ReleaseServer(self.repository)
        self.slots = Slots(folder / "state" / "bundles")

    def fetch(
        self, current: int = 0, timeout_s: float = 30.0, app: str = "demo", **fields: Any
    ) -> Path | None:
        """Fetch as a device would that has the release `current`."""
        request = UpdateRequest(
            self.server.url, self.root, str(self.slots.folder), app, current, **fields
        )
        return fetch(request, timeout_s)

    def fetch_fails(self, expected: str, current: int = 0, **options: Any) -> None:
        """Fetch, expect an error, and find the device as it was."""
        before = self._on_device()
        with pytest.raises(UpdateError, match=expected):
            self.fetch(current, **options)
        assert self._on_device() == before

    def _on_device(self) -> tuple[int | None, set[str]]:
        return self.slots.state().current, {path.name for path in self.slots.installed()}

    def publish(self, name: str, percent: int = 100) -> Published:
        return self.releases.publish(self.folder / name, percent)

    def publish_unchecked(self, name: str) -> Published:
        """Publish a bundle that does not compute its golden vectors, as a malicious lab would."""
        with patch("sanderling_trainer.releases.repository._check_golden"):
            return self.publish(name)

    def refresh(self, days: float = 30) -> None:
        """Sign everything again, for so many days."""
        keys = KeyFolder(self.keys)
        ReleaseRepository(self.releases.store, keys, lifetimes=expiring(days)).refresh()

    def replace_file(self, bundle: str, name: str, content: bytes) -> None:
        """Change a file of a bundle before it is published, and its manifest with it."""
        (self.folder / bundle / name).write_bytes(content)
        reseal(self.folder / bundle)

    def target(self, release: int, name: str) -> Path:
        """Return the published file of a release."""
        return next((self.repository / "targets" / "releases" / str(release)).glob(f"*.{name}"))

    def sign(self, edit: Callable[[Targets], object]) -> None:
        """Publish targets that a careless or malicious holder of the online keys has edited."""

        def change(targets: Targets) -> bool:
            edit(targets)
            return True

        self.releases.change_targets(change)

    def engine(self) -> Engine:
        return Engine.open(
            self.folder / "one", self.folder / "state", releases=self.server.url, root=self.root
        )


def replace_timestamp_key(world: ReleaseWorld, signers: list[str]) -> None:
    """Replace the timestamp key by a new one in root 2, signed by these keys."""
    metadata = Metadata[Root].from_bytes(world.root)
    metadata.signatures.clear()
    root, revoked = metadata.signed, metadata.signed.roles["timestamp"].keyids[0]
    root.version, root.expires = 2, (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
    root.revoke_key(revoked, "timestamp")
    (world.keys / "timestamp.pem").unlink()
    root.add_key(KeyFolder(world.keys).create("timestamp"), "timestamp")
    for name in signers:
        folder = world.root_keys if name.startswith("root") else KeyFolder(world.keys)
        metadata.sign(folder.signer(name, {folder.public_key(name).keyid}), append=True)
    metadata.to_file(str(world.repository / "metadata" / "2.root.json"))
