"""Releases end to end: a real repository over a real socket, fetched by the real child process.

Whatever the repository, the network or an attacker does, the device ends with the new bundle whole, or the old one.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from starlette.types import ASGIApp, Receive, Scope, Send
from tuf.api.metadata import Metadata, Root, Targets

from sanderling import Engine, UpdateError
from sanderling.bundle.reader import Bundle
from sanderling.releases.slots import Slots
from sanderling.releases.update_worker import in_rollout
from sanderling.releases.updater import fetch
from sanderling_trainer import release_repository as releases
from sanderling_trainer.release_repository import (
    ReleaseError,
    create_repository,
    publish,
    refresh,
    set_rollout,
)
from tests.support.bundles import reseal, write_bundle
from tests.support.servers import Prompt

pytestmark = pytest.mark.lab

ITEMS = "items.safetensors"


class Server:
    """A repository over loopback; notes each file that is asked for, and answers some of them otherwise."""

    def __init__(self, repository: Path) -> None:
        self.asked: list[str] = []
        self.instead: dict[str, ASGIApp] = {}
        self._files = releases.app(repository)
        self._server = Prompt(uvicorn.Config(self, port=0, lifespan="off", log_level="critical"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._started = threading.Event()
        startup = self._server.startup

        async def started(*arguments: Any, **named: Any) -> None:
            await startup(*arguments, **named)
            self._started.set()

        self._server.startup = started  # type: ignore[method-assign]  # uvicorn offers only a flag to poll
        self._thread.start()
        assert self._started.wait(10)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.asked.append(path)
        await next((app for end, app in self.instead.items() if path.endswith(end)), self._files)(
            scope, receive, send
        )

    def files(self) -> Counter[str]:
        """Return how often each file of a bundle was asked for since the last call."""
        names = Counter(
            path.rsplit("/", 1)[-1].split(".", 1)[1] for path in self.asked if "/targets/" in path
        )
        self.asked.clear()
        return names

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)


def answer(
    body: bytes, length: int | None = None, times: int = 1, then: Callable[[], object] = bool
) -> ASGIApp:
    """Return an application that sends a body some times over, whatever length it announces, and then does a thing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(times):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        then()
        await send({"type": "http.response.body", "body": b""})

    return app


async def silence(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing until the client goes."""
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles that share their encoder, and a repository in which the first is released."""
    folder = tmp_path_factory.mktemp("made")
    write_bundle(folder / "one", release=1)
    write_bundle(folder / "two", release=2, seed=1)
    create_repository(folder / "repository", folder / "keys")
    publish(folder / "one", folder / "repository", folder / "keys")
    return folder


class Fleet:
    """One repository with its keys and its server, and one device."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repository, self.keys = folder, folder / "repository", folder / "keys"
        self.root = (self.repository / "metadata" / "1.root.json").read_bytes()
        self.server = Server(self.repository)
        self.slots = Slots(folder / "state" / "bundles")

    def fetch(self, current: int = 0, **options: Any) -> Path | None:
        arguments = {"app": "demo", "current_release": current, "timeout_s": 30.0, **options}
        return fetch(self.server.url, self.root, self.slots.folder, **arguments)

    def refused(self, expected: str, current: int = 0, **options: Any) -> None:
        """Fetch, expect an error, and find the device as it was."""
        before = self.slots.state().current, {path.name for path in self.slots.installed()}
        with pytest.raises(UpdateError, match=expected):
            self.fetch(current, **options)
        assert (
            self.slots.state().current,
            {path.name for path in self.slots.installed()},
        ) == before

    def publish(self, name: str, **options: Any) -> int:
        return publish(self.folder / name, self.repository, self.keys, **options)

    def target(self, release: int, name: str) -> Path:
        return next((self.repository / "targets" / "releases" / str(release)).glob(f"*.{name}"))

    def sign(self, edit: Callable[[Targets], object]) -> None:
        """Publish whatever a careless or malicious holder of the online keys writes into the targets."""
        roles = releases._next(self.repository)
        edit(roles[0])
        releases._commit(self.repository, self.keys, *roles, 30)

    def engine(self) -> Engine:
        return Engine.open(
            self.folder / "one", self.folder / "state", releases=self.server.url, root=self.root
        )


@pytest.fixture
def fleet(made: Path, tmp_path: Path) -> Iterator[Fleet]:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.server.stop()


def confirmed() -> None:
    """Wait until the engine has noted that its new bundle served."""
    for thread in threading.enumerate():
        if thread.name == "sanderling-confirm":
            thread.join(10)


def test_the_newest_release_arrives_whole(fleet: Fleet) -> None:
    """The newest release is installed, verified and byte for byte what was published; after that there is none."""
    fleet.publish("two")
    folder = fleet.fetch()
    assert folder == fleet.slots.path(2)
    assert Bundle.open(folder, verify=True).manifest == Bundle.open(fleet.folder / "two").manifest
    assert sorted(path.name for path in fleet.slots.folder.iterdir()) == ["2"]
    assert fleet.fetch(2) is None


def test_update_between_two_requests(fleet: Fleet) -> None:
    """The engine swaps between two requests, is confirmed by serving, opens anew with the release, and goes back."""
    fleet.publish("two")
    with fleet.engine() as engine:
        assert engine.recommend("anna").release == 1
        assert engine.update() == 2
        assert not fleet.slots.state().confirmed
        assert engine.recommend("anna").release == 2
        confirmed()
        assert (fleet.slots.state().confirmed, fleet.slots.state().highest) == (True, 2)
    with fleet.engine() as engine:
        assert engine.release == 2
        assert engine.rollback() == 1
        assert engine.recommend("anna").release == 1
        assert engine.update() is None


def test_a_short_life_still_confirms(fleet: Fleet) -> None:
    """A process that serves once and closes has confirmed the release, so the next start does not roll it back."""
    fleet.publish("two")
    with fleet.engine() as engine:
        engine.update()
        engine.recommend("anna")
    assert fleet.slots.state().confirmed


def test_an_update_that_never_served_is_tried_again(fleet: Fleet) -> None:
    """Closing in good order before the first request keeps the release unconfirmed and unblocked."""
    fleet.publish("two")
    with fleet.engine() as engine:
        engine.update()
    for _ in range(2):
        with fleet.engine() as engine:
            assert engine.release == 2
    assert not fleet.slots.state().confirmed


def test_unchanged_files_are_not_downloaded(fleet: Fleet) -> None:
    """Files that the app's bundle or an installed one has are copied; the rest is asked for once."""
    fleet.fetch(serving=fleet.folder / "one")
    assert fleet.server.files() == {"manifest.json": 1}
    fleet.publish("two")
    fleet.fetch(1)
    asked = fleet.server.files()
    assert asked == {"manifest.json": 1, ITEMS: 1, "policy.safetensors": 1, "golden.json": 1}


def test_a_copy_that_rotted_is_downloaded(fleet: Fleet) -> None:
    """A file on the device is reused only if its hash is the signed one."""
    rotten = fleet.folder / "one" / "encoder.onnx"
    content = bytearray(rotten.read_bytes())
    content[100] ^= 1
    rotten.write_bytes(content)
    folder = fleet.fetch(serving=fleet.folder / "one")
    assert fleet.server.files() == {"manifest.json": 1, "encoder.onnx": 1}
    assert folder is not None
    Bundle.open(folder, verify=True)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["manifest.json", ITEMS])
def test_tampered_target(fleet: Fleet, name: str) -> None:
    """A file with one flipped bit is refused; the release is not blamed, and arrives once the mirror is right."""
    path = fleet.target(1, name)
    flip(path)
    fleet.refused("a file differs from its signed length or hash")
    assert fleet.slots.state().blocked == {}
    flip(path)
    assert fleet.fetch() == fleet.slots.path(1)


@pytest.mark.parametrize(("name", "old", "new"), [
    ("timestamp.json", b'"version":2', b'"version":3'),
    ("2.snapshot.json", b'"version":2', b'"version":9'),
    ("2.targets.json", b'"rollout":100', b'"rollout":10'),
])  # fmt: skip
def test_tampered_metadata(fleet: Fleet, name: str, old: bytes, new: bytes) -> None:
    """Metadata that was changed after signing is refused, whichever role it belongs to."""
    path = fleet.repository / "metadata" / name
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    fleet.refused("not signed by the trusted keys")


@pytest.mark.parametrize(
    "body", [b"", b"<html>Log in to the hotel's network</html>", b"[" * 10_000, b"{}"]
)
def test_captive_portal(fleet: Fleet, body: bytes) -> None:
    """An answer that is no metadata at all is an error like any other."""
    fleet.server.instead["timestamp.json"] = answer(body)
    fleet.refused("metadata is not valid")


def test_another_publisher(fleet: Fleet) -> None:
    """A whole repository signed by other keys is refused by a device that trusts the app's root."""
    shutil.rmtree(fleet.repository / "metadata")
    create_repository(fleet.repository, fleet.folder / "other-keys")
    publish(fleet.folder / "two", fleet.repository, fleet.folder / "other-keys")
    fleet.refused("not signed by the trusted keys")


def test_replayed_timestamp(fleet: Fleet) -> None:
    """A device that has seen newer metadata refuses older, though it is signed and not expired."""
    old = fleet.folder / "timestamp.json"
    current = fleet.repository / "metadata" / "timestamp.json"
    shutil.copyfile(current, old)
    fleet.publish("two")
    assert fleet.fetch() == fleet.slots.path(2)
    shutil.copyfile(old, current)
    fleet.refused("older metadata than this device has seen", 2)


def test_expired_metadata_is_stale_and_serving_goes_on(fleet: Fleet) -> None:
    """Past its expiry the update says stale; the bundle that was there serves on, and a refresh heals."""
    fleet.publish("two")
    with fleet.engine() as engine:
        assert engine.update() == 2
        refresh(fleet.repository, fleet.keys, expires_days=-1)
        with pytest.raises(UpdateError, match=r"stale.*has expired"):
            engine.update()
        assert engine.recommend("anna").release == 2
        refresh(fleet.repository, fleet.keys)
        assert engine.update() is None


def test_truncated_download(fleet: Fleet) -> None:
    """A connection that ends halfway leaves nothing behind, and the next try succeeds."""
    content = fleet.target(1, ITEMS).read_bytes()
    fleet.server.instead[ITEMS] = answer(content[: len(content) // 2], len(content))
    fleet.refused("a download failed")
    fleet.server.instead[ITEMS] = answer(content[: len(content) // 2])
    fleet.refused("a file differs from its signed length or hash")
    fleet.server.instead.clear()
    assert fleet.fetch() == fleet.slots.path(1)
    assert [path.name for path in fleet.slots.folder.iterdir()] == ["1"]


@pytest.mark.parametrize("name", ["timestamp.json", ITEMS])
def test_endless_data(fleet: Fleet, name: str) -> None:
    """A file that does not end is cut off at its signed length, and metadata at the length of its role."""
    fleet.server.instead[name] = answer(bytes(2**16), times=2**10)
    fleet.refused("a file is longer than its signed length")


def test_slow_retrieval(fleet: Fleet) -> None:
    """A server that accepts and never answers costs the deadline of the whole transfer and no more."""
    fleet.server.instead[ITEMS] = silence
    fleet.refused("took longer than 2 s", timeout_s=2.0)


def test_no_server(fleet: Fleet) -> None:
    """Without a network the answer is an error, and nothing else happens."""
    fleet.server.stop()
    fleet.refused("a download failed")


def test_another_app(fleet: Fleet) -> None:
    """A release for another app is not seen, in the same repository and with the same keys."""
    write_bundle(fleet.folder / "other", release=3, app="other")
    fleet.publish("other")
    assert fleet.fetch(1) is None
    assert fleet.fetch(1, app="other") == fleet.slots.path(3)


def test_signed_for_the_wrong_app(fleet: Fleet) -> None:
    """A signed description that names this app does not help when the manifest names another: refused and blocked."""
    write_bundle(fleet.folder / "other", release=3, app="other")
    fleet.publish("other")
    fleet.sign(
        lambda targets: targets.targets["releases/3/manifest.json"].custom.update(app="demo")
    )
    fleet.refused("expected demo 3, found other 3", 1)
    assert 3 in fleet.slots.state().blocked
    assert fleet.fetch(1) is None


def test_mixed_release(fleet: Fleet) -> None:
    """A release whose signed targets are not the files of its manifest is refused: no mix-and-match."""
    fleet.publish("two")

    def mix(targets: Targets) -> None:
        one, two = (targets.targets[f"releases/{number}/{ITEMS}"] for number in (1, 2))
        two.hashes, two.length = one.hashes, one.length

    fleet.sign(mix)
    fleet.refused(f"{ITEMS}: expected a target with the length and SHA-256 of the manifest", 1)


def test_numbers_must_not_run_away(fleet: Fleet) -> None:
    """A release number far above the present one is refused: it would lock out all honest ones."""
    write_bundle(fleet.folder / "far", release=20_000)
    fleet.publish("far")
    fleet.refused("expected at most 10000 above 1", 1)


def test_future_engine(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release for a later engine costs one small download, and is not blocked: the app may be updated."""
    with monkeypatch.context() as later:
        later.setattr("sanderling.bundle.reader.__version__", "9.0.0")
        write_bundle(fleet.folder / "future", release=3, min_engine="9.0.0")
        fleet.publish("future")
    fleet.refused(r"expected an engine of at least 9\.0\.0", 1)
    assert fleet.server.files() == {"manifest.json": 1}
    assert fleet.slots.state().blocked == {}


def test_blocked_release(fleet: Fleet) -> None:
    """A release that failed on this device is not fetched again; the next one is."""
    fleet.publish("two")
    fleet.slots.block(2, "scores were NaN")
    assert fleet.fetch(1) is None
    assert fleet.server.files() == {}
    write_bundle(fleet.folder / "three", release=3, seed=2)
    fleet.publish("three")
    assert fleet.fetch(1) == fleet.slots.path(3)


def test_wrong_golden_vectors(fleet: Fleet) -> None:
    """A whole, signed bundle that computes something else than it says is refused, blocked and asked for only once."""
    golden = fleet.folder / "two" / "golden.json"
    content = msgspec.json.decode(golden.read_bytes())
    content["texts"][0]["vector"] = content["texts"][1]["vector"]
    golden.write_bytes(msgspec.json.encode(content))
    reseal(fleet.folder / "two")
    fleet.publish("two")
    fleet.refused("release 2 is refused: golden text", 1)
    assert "golden text" in fleet.slots.state().blocked[2]
    fleet.server.files()
    assert fleet.fetch(1) is None
    assert fleet.server.files() == {}


def test_encoder_that_does_not_load(fleet: Fleet) -> None:
    """An encoder that is no model meets the child only, and its release is blocked."""
    (fleet.folder / "two" / "encoder.onnx").write_bytes(b"no model")
    reseal(fleet.folder / "two")
    fleet.publish("two")
    fleet.refused("encoder .* does not load", 1)
    assert 2 in fleet.slots.state().blocked


@pytest.mark.parametrize("name", ["timestamp.json", "manifest.json", ITEMS])
def test_killed_midway(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A child that is killed during any download leaves the old bundle as it was, and the next try succeeds."""
    children: list[subprocess.Popen[Any]] = []

    class Watched(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            children.append(self)
            super().__init__(*arguments, **named)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    fleet.server.instead[name] = answer(b"{", 1000, then=lambda: children[-1].kill())
    fleet.refused("killed by signal 9")
    fleet.server.instead.clear()
    assert fleet.fetch() == fleet.slots.path(1)
    assert [path.name for path in fleet.slots.folder.iterdir()] == ["1"]
    assert not list((fleet.folder / "state" / "tuf").glob("tmp*"))


def test_rollout(fleet: Fleet) -> None:
    """A release goes to its share of the installs, widening adds and never removes, and 0 withdraws it."""
    installs = [f"{number:032x}" for number in range(2000)]
    taken = [
        {install for install in installs if in_rollout(install, 2, percent)}
        for percent in (0, 10, 50, 100)
    ]
    assert [len(share) for share in (taken[0], taken[3])] == [0, 2000]
    assert taken[0] <= taken[1] <= taken[2] <= taken[3]
    assert 140 < len(taken[1]) < 260
    fleet.publish("two", rollout=10)
    inside, outside = min(taken[1]), min(taken[2] - taken[1])
    assert fleet.fetch(1, install=outside) is None
    assert fleet.fetch(1) is None
    assert fleet.fetch(1, install=inside) == fleet.slots.path(2)
    set_rollout(2, 0, fleet.repository, fleet.keys)
    assert fleet.fetch(1, install=inside) is None


def rotate(fleet: Fleet, signers: list[str]) -> None:
    """Replace the timestamp key by a new one in root 2, signed by these root keys."""
    metadata = Metadata[Root].from_bytes(fleet.root)
    metadata.signatures.clear()
    root, revoked = metadata.signed, metadata.signed.roles["timestamp"].keyids[0]
    root.version, root.expires = 2, (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
    root.revoke_key(revoked, "timestamp")
    (fleet.keys / "timestamp.pem").unlink()
    releases._make_key(fleet.keys, "timestamp")
    root.add_key(releases._signer(fleet.keys, "timestamp").public_key, "timestamp")
    for name in signers:
        private = load_pem_private_key((fleet.keys / f"{name}.pem").read_bytes(), None)
        metadata.sign(CryptoSigner(private), append=True)  # type: ignore[arg-type]
    metadata.to_file(str(fleet.repository / "metadata" / "2.root.json"))


def test_key_rotation(fleet: Fleet) -> None:
    """Two of the three root keys replace an online key; what the revoked key signed counts no more."""
    rotate(fleet, ["root-1", "root-3"])
    fleet.refused("not signed by the trusted keys")
    refresh(fleet.repository, fleet.keys)
    assert fleet.fetch() == fleet.slots.path(1)


@pytest.mark.parametrize("signers", [[], ["root-2"], ["root-2", "root-2"], ["targets", "snapshot"]])
def test_one_root_key_is_not_enough(fleet: Fleet, signers: list[str]) -> None:
    """One stolen root key, even used twice, and any number of online keys cannot replace a key."""
    rotate(fleet, signers)
    refresh(fleet.repository, fleet.keys)
    fleet.refused("not signed by the trusted keys")


def test_publishing_is_monotonic(fleet: Fleet) -> None:
    """A number that was published, a share beyond 100 percent and a release that is not there are refused."""
    with pytest.raises(ReleaseError, match="expected a number above 1"):
        fleet.publish("one")
    with pytest.raises(ReleaseError, match="percentage from 0 to 100"):
        fleet.publish("two", rollout=101)
    with pytest.raises(ReleaseError, match="found no 9"):
        set_rollout(9, 50, fleet.repository, fleet.keys)
    with pytest.raises(ReleaseError, match="expected no repository yet"):
        create_repository(fleet.repository, fleet.folder / "new-keys")
    assert fleet.publish("two") == 2


def test_only_the_owner_reads_the_keys(fleet: Fleet) -> None:
    """Private keys have mode 0600, and none of them lies where the server looks."""
    assert {oct(path.stat().st_mode)[-3:] for path in fleet.keys.iterdir()} == {"600"}
    assert not list(fleet.repository.rglob("*.pem"))
