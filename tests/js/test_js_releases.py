"""Updates of the JavaScript engine in Node, from a repository that Python has made.

Releases, attacks and accidents are those of `tests/trainer/test_release.py` and its neighbours.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.bundles import reseal, write_bundle
from tests.support.damage import alter, flip
from tests.support.javascript import NodeCalls, needs_node

pytestmark = [pytest.mark.lab, needs_node]

ITEMS = "items.safetensors"


class Device:
    """An engine in a process of Node, and its folder."""

    def __init__(self, world: Any, compiled: Path) -> None:
        self.world = world
        self.folder = world.folder / "device"
        self._compiled = compiled
        self._calls: NodeCalls | None = None

    def start(self, bundle: str = "one", days: float = 0, *, has_encoder: bool = False) -> int:
        """Open an engine in a new process, whose clock is so many days ahead; it loads the
        encoder's packages, which takes seconds, only where a test is about them."""
        self._calls = NodeCalls(self._compiled, "device")
        path, url, root = self.world.folder / bundle, self.world.server.url, self.world.root
        options = {"days": days, "hasEncoder": has_encoder}
        return self._calls("open", str(path), str(self.folder), url, root.decode(), options)

    def __call__(self, name: str, *parameters: Any) -> Any:
        """Call the engine; open it first where no process runs."""
        if self._calls is None:
            self.start()
        assert self._calls is not None
        return self._calls(name, *parameters)

    def stop(self) -> None:
        """Close the engine, as an app does that ends."""
        if self._calls is not None:
            self._calls("close")
            self.kill()  # what it was compiling in the background takes seconds to end

    def kill(self) -> None:
        """Kill the process."""
        assert self._calls is not None
        self._calls.kill()
        self._calls.close()
        self._calls = None

    def fails(self, expected: str, *parameters: Any) -> None:
        """Update, expect an error, and find the active release as it was."""
        before = self("recommend")
        with pytest.raises(ValueError, match=f"UpdateError: .*{expected}"):
            self("update", *parameters)
        assert self("recommend") == before

    def slots(self) -> dict[str, Any]:
        """Return the state of the installed bundles."""
        return json.loads((self.folder / "bundles" / "slots.json").read_bytes())

    def releases(self) -> list[str]:
        """Return the names of the installed releases."""
        folder = self.folder / "bundles" / "releases"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def device(world: Any, compiled: Path) -> Iterator[Device]:
    """A device with release 1; release 2 is published."""
    world.publish("two")
    device = Device(world, compiled)
    yield device
    device.stop()


def respond(*arguments: Any, **named: Any) -> Any:
    """Return an application that sends a body."""
    from tests.support.releases import respond

    return respond(*arguments, **named)


def test_an_update_and_the_next_start(device: Device) -> None:
    """A release is fetched but for what the device has, swapped in, confirmed by its first slate,
    and opened by the next engine; without a newer one nothing is fetched."""
    assert device("recommend") == 1
    assert device("update") == 2
    fetched = device.world.server.downloads()
    assert set(fetched) == {"manifest.json", "golden.json", ITEMS, "policy.safetensors"}
    assert device.slots()["confirmed"] is False
    assert device("recommend") == 2
    assert device("update") is None
    assert device.slots() == {
        "current": 2, "previous": None, "confirmed": True, "tried": False, "highest": 2,
        "blocked": {},
    }  # fmt: skip
    assert device.world.server.downloads() == {}
    device.stop()
    assert device.start() == 2


def test_the_app_brings_a_newer_bundle(device: Device) -> None:
    """An installed release gives way to a newer one that the app ships."""
    assert device("update") == 2
    assert device("recommend") == 2
    device.stop()
    write_bundle(device.world.folder / "three", release=3)
    assert device.start("three") == 3


def test_a_release_that_decided_nothing_gets_one_more_start(device: Device) -> None:
    """A start that ends in a crash before its first slate is a trial that failed: the release is
    rolled back and blocked; one that was closed is none."""
    assert device("update") == 2
    device.stop()
    assert device.start() == 2
    device.stop()
    assert device.start() == 2
    device.kill()
    assert device.start() == 1
    assert "ended before" in device.slots()["blocked"]["2"]
    assert device("update") is None


def test_a_roll_back_by_the_app(device: Device) -> None:
    """What the app rolls back is never installed again; the next release is."""
    assert device("update") == 2
    assert device("recommend") == 2
    assert device("rollback") == 1
    assert device("update") is None
    assert "requested by the app" in device.slots()["blocked"]["2"]
    write_bundle(device.world.folder / "three", release=3, seed=2)
    device.world.publish("three")
    assert device("update") == 3
    assert device("recommend") == 3


@pytest.mark.parametrize("name", ["manifest.json", ITEMS])
def test_tampered_target(device: Device, name: str) -> None:
    """A file with one flipped bit fails the update; the release installs once the file is right."""
    path = device.world.target(2, name)
    flip(path)
    device.fails("a file differs from its signed length or hash")
    flip(path)
    assert device("update") == 2


@pytest.mark.parametrize(("name", "old", "new"), [
    ("timestamp.json", b'"version":3', b'"version":4'),
    ("3.snapshot.json", b'"version":3', b'"version":9'),
    ("3.targets.json", b'"rollout":100', b'"rollout":10'),
])  # fmt: skip
def test_tampered_metadata(device: Device, name: str, old: bytes, new: bytes) -> None:
    """Metadata that was changed after signing is refused, whichever role it belongs to."""
    alter(device.world.repository / "metadata" / name, old, new)
    device.fails("not signed by the trusted keys")


@pytest.mark.parametrize(
    "body", [b"", b"<html>Log in to the hotel's network</html>", b"[" * 10_000, b"{}"]
)
def test_captive_portal(device: Device, body: bytes) -> None:
    """A response that is no metadata at all is an `UpdateError` like any other."""
    device.world.server.overrides["timestamp.json"] = respond(body)
    device.fails("metadata is not valid")


def test_another_publisher(device: Device) -> None:
    """A whole repository signed by other keys is refused: the device trusts the app's root."""
    from tests.support.releases import make_repository

    shutil.rmtree(device.world.repository / "metadata")
    shutil.rmtree(device.world.repository / "targets")
    make_repository(device.world.folder, "other-keys").publish(device.world.folder / "two")
    device.fails("not signed by the trusted keys")


def test_something_else_than_a_root(device: Device) -> None:
    """What is no root.json is named as the app's own mistake."""
    device.world.root = b"-----BEGIN PUBLIC KEY-----"
    device.fails("root: expected the repository's root.json")


def test_replayed_timestamp(device: Device) -> None:
    """A device that has seen newer metadata refuses older metadata, though it is signed: also one
    that was started since."""
    current = device.world.repository / "metadata" / "timestamp.json"
    old = current.read_bytes()
    write_bundle(device.world.folder / "three", release=3, seed=2)
    device.world.publish("three")
    assert device("update") == 3
    assert device("recommend") == 3
    device.stop()
    current.write_bytes(old)
    device.fails("older metadata than this device has seen")


def test_frozen_metadata_expires(device: Device) -> None:
    """Metadata that a network keeps from being renewed is stale after its date, by the device's
    clock; a refresh repairs it."""
    device.start(days=40)
    device.fails("stale.*has expired")
    device.world.refresh(days=80)
    assert device("update") == 2


def test_mixed_metadata(device: Device) -> None:
    """Targets of another snapshot than the timestamp's are refused: no mix and match."""
    metadata = device.world.repository / "metadata"
    shutil.copyfile(metadata / "2.targets.json", metadata / "3.targets.json")
    device.fails("older metadata than this device has seen")


def test_truncated_download(device: Device) -> None:
    """A connection that ends halfway is an error, and the next update goes on where it stopped."""
    content = device.world.target(2, ITEMS).read_bytes()
    device.world.server.overrides[ITEMS] = respond(content[: len(content) // 2], len(content))
    device.fails("a download failed")
    device.world.server.overrides[ITEMS] = respond(content[: len(content) // 2])
    device.fails("a file differs from its signed length or hash")
    device.world.server.overrides.clear()
    assert device.releases() == []
    assert device("update") == 2


@pytest.mark.parametrize("name", ["timestamp.json", ITEMS])
def test_endless_data(device: Device, name: str) -> None:
    """An endless file is cut off at its signed length, and metadata at the limit of its role."""
    device.world.server.overrides[name] = respond(bytes(2**16), times=2**10)
    device.fails("a file is longer than its signed length")


def test_a_server_that_never_responds(device: Device) -> None:
    """A server that accepts and never responds costs the update's time limit and no more."""
    from tests.support.releases import never_respond

    device.world.server.overrides[ITEMS] = never_respond
    device.fails("took longer than 1 s", 1)


def test_no_server(device: Device) -> None:
    """Without a network the update is an error, and nothing else happens."""
    device("recommend")
    device.world.server.stop()
    device.fails("a download failed")


def test_signed_for_the_wrong_app(device: Device) -> None:
    """Signed custom fields that name this app do not help a manifest that names another: refused
    and blocked. A release for another app is ignored."""
    write_bundle(device.world.folder / "other", release=3, app="other")
    device.world.publish("other")
    assert device("update") == 2
    assert device("recommend") == 2
    device.world.sign(
        lambda targets: targets.targets["releases/3/manifest.json"].custom.update(app="demo")
    )
    device.fails("expected demo 3, found other 3")
    assert "3" in device.slots()["blocked"]
    assert device("update") is None


def test_mixed_release(device: Device) -> None:
    """A release whose signed targets are not the files of its manifest is refused."""

    def mix(targets: Any) -> None:
        one, two = (targets.targets[f"releases/{number}/{ITEMS}"] for number in (1, 2))
        two.hashes, two.length = one.hashes, one.length

    device.world.sign(mix)
    device.fails(f"{ITEMS}: expected a target with the length and SHA-256 of the manifest")


def test_a_release_number_far_above_is_refused(device: Device) -> None:
    """A release number far above the present one is refused: it would lock out all honest ones."""
    write_bundle(device.world.folder / "far", release=20_000)
    device.world.publish("far")
    device.fails("expected at most 10000 above 1")


def test_wrong_golden_vectors(device: Device) -> None:
    """A complete, signed bundle that computes other vectors is refused, blocked and downloaded only
    once."""
    bundle = device.world.folder / "wrong"
    write_bundle(bundle, release=3, seed=7)
    content = msgspec.json.decode((bundle / "golden.json").read_bytes())
    content["texts"][0]["vector"] = content["texts"][1]["vector"]
    (bundle / "golden.json").write_bytes(msgspec.json.encode(content))
    reseal(bundle)
    device.world.publish_unchecked("wrong")
    device.start(has_encoder=True)
    device.fails("release 3 is refused: .*golden text")
    assert "golden text" in device.slots()["blocked"]["3"]
    device.world.server.downloads()
    assert device("update") == 2
    assert "manifest.json" in device.world.server.downloads()


def test_an_encoder_that_does_not_load(device: Device) -> None:
    """A release whose encoder does not load is blocked where that of the active one does."""
    bundle = device.world.folder / "wrong"
    write_bundle(bundle, release=3, seed=7)
    (bundle / "encoder.onnx").write_bytes(b"no model")
    reseal(bundle)
    device.world.publish_unchecked("wrong")
    device.start(has_encoder=True)
    device.fails("release 3 is refused: encoder.onnx")
    assert "3" in device.slots()["blocked"]


def test_a_release_for_a_later_engine(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release for a later engine costs one small download, and is not blocked: the app may be
    updated."""
    with monkeypatch.context() as later:
        later.setattr("sanderling.bundle.reader.__version__", "9.0.0")
        write_bundle(device.world.folder / "future", release=3, min_engine="9.0.0")
        device.world.publish("future")
    device.fails(r"expected an engine of at least 9\.0\.0")
    assert device.world.server.downloads() == {"manifest.json": 1}
    assert device.releases() == []


@pytest.mark.parametrize("name", ["timestamp.json", "manifest.json", ITEMS])
def test_a_process_killed_during_a_download(device: Device, name: str) -> None:
    """A process that is killed during any download changes nothing, and the next update
    succeeds."""
    device.start()
    calls = device._calls
    assert calls is not None
    device.world.server.overrides[name] = respond(b"{", 1000, before_end=calls.kill)
    with pytest.raises(EOFError):
        device("update")
    device.kill()
    device.world.server.overrides.clear()
    assert device.start() == 1
    assert device("recommend") == 1
    assert device.releases() == []
    assert device("update") == 2
    assert device("recommend") == 2


def test_rotated_root_keys(device: Device) -> None:
    """A device follows its app's root to the newest one, and knows it from then on: a server that
    hides it does not bring the old keys back."""
    replace_timestamp_key(device.world, ["root-1", "root-2"])
    device.world.refresh()
    assert device("update") == 2
    assert device("recommend") == 2
    device.stop()
    metadata = device.world.repository / "metadata"
    (metadata / "2.root.json").rename(metadata / "hidden.json")
    assert device("update") is None


def replace_timestamp_key(world: Any, signers: list[str]) -> None:
    """Replace the timestamp key by a new one in root 2, signed by these keys."""
    from tests.support.releases import replace_timestamp_key

    replace_timestamp_key(world, signers)


@pytest.mark.parametrize("signers", [[], ["root-2"], ["root-2", "root-2"], ["targets", "snapshot"]])
def test_one_root_key_is_not_enough(device: Device, signers: list[str]) -> None:
    """One stolen root key, even used twice, or any number of online keys cannot replace a key."""
    replace_timestamp_key(device.world, signers)
    device.world.refresh()
    device.fails("not signed by the trusted keys")


@pytest.fixture(scope="module")
def calls(compiled: Path) -> Iterator[NodeCalls]:
    """Functions of the package that need no engine."""
    calls = NodeCalls(compiled, "device")
    yield calls
    calls.close()


keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | keys
values = st.recursive(
    scalars, lambda of: st.lists(of, max_size=4) | st.dictionaries(keys, of, max_size=5)
)


@settings(max_examples=300)
@given(values)
def test_canonical_json(calls: NodeCalls, value: Any) -> None:
    """What is signed has the bytes of Python's canonical JSON, for any value."""
    from securesystemslib.formats import encode_canonical

    assert calls("canonicalJson", json.dumps(value)) == encode_canonical(value)


@settings(max_examples=200)
@given(st.binary(min_size=16, max_size=16), st.integers(1, 2**53), st.integers(0, 100))
def test_rollout(calls: NodeCalls, install: bytes, release: int, percent: int) -> None:
    """An install takes part in a rollout in JavaScript exactly where it does in Python."""
    from sanderling.releases.update_worker import in_rollout

    expected = in_rollout(install.hex(), release, percent)
    assert calls("inRollout", install.hex(), release, percent) == expected
