"""Attacks on an update, and accidents: the device ends with the new bundle whole, or with the old
one.

The repository, the network and the holders of some of the keys may do what they like.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import msgspec
import pytest
from tuf.api.metadata import Targets

from sanderling import UpdateError
from tests.support.bundles import reseal, write_bundle
from tests.support.damage import alter, flip
from tests.support.releases import (
    ITEMS,
    ReleaseWorld,
    make_repository,
    never_respond,
    replace_timestamp_key,
    respond,
)

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("name", ["manifest.json", ITEMS])
def test_tampered_target(world: ReleaseWorld, name: str) -> None:
    """A file with one flipped bit fails the update; the release is not blocked, and installs once
    the file is right.
    """
    path = world.target(1, name)
    flip(path)
    world.fetch_fails("a file differs from its signed length or hash")
    assert world.slots.state().blocked == {}
    flip(path)
    assert world.fetch() == world.slots.path(1)


@pytest.mark.parametrize(("name", "old", "new"), [
    ("timestamp.json", b'"version":2', b'"version":3'),
    ("2.snapshot.json", b'"version":2', b'"version":9'),
    ("2.targets.json", b'"rollout":100', b'"rollout":10'),
])  # fmt: skip
def test_tampered_metadata(world: ReleaseWorld, name: str, old: bytes, new: bytes) -> None:
    """Metadata that was changed after signing is refused, whichever role it belongs to."""
    alter(world.repository / "metadata" / name, old, new)
    world.fetch_fails("not signed by the trusted keys")


@pytest.mark.parametrize(
    "body", [b"", b"<html>Log in to the hotel's network</html>", b"[" * 10_000, b"{}"]
)
def test_captive_portal(world: ReleaseWorld, body: bytes) -> None:
    """A response that is no metadata at all is an `UpdateError` like any other."""
    world.server.overrides["timestamp.json"] = respond(body)
    world.fetch_fails("metadata is not valid")


def test_another_publisher(world: ReleaseWorld) -> None:
    """A whole repository signed by other keys is refused: the device trusts the app's root."""
    shutil.rmtree(world.repository / "metadata")
    shutil.rmtree(world.repository / "targets")
    make_repository(world.folder, "other-keys").publish(world.folder / "two")
    world.fetch_fails("not signed by the trusted keys")


def test_replayed_timestamp(world: ReleaseWorld) -> None:
    """A device that has seen newer metadata refuses older metadata, though it is signed."""
    old = world.folder / "timestamp.json"
    current = world.repository / "metadata" / "timestamp.json"
    shutil.copyfile(current, old)
    world.publish("two")
    assert world.fetch() == world.slots.path(2)
    shutil.copyfile(old, current)
    world.fetch_fails("older metadata than this device has seen", 2)


def test_expired_metadata_is_stale_and_the_bundle_stays_active(world: ReleaseWorld) -> None:
    """Expired metadata is an error that says stale; the active bundle serves on, and a refresh
    repairs it.
    """
    world.publish("two")
    with world.engine() as engine:
        assert engine.update() == 2
        world.refresh(-1)
        with pytest.raises(UpdateError, match=r"stale.*has expired"):
            engine.update()
        assert engine.recommend("anna").release == 2
        world.refresh()
        assert engine.update() is None


def test_truncated_download(world: ReleaseWorld) -> None:
    """A connection that ends halfway leaves nothing behind, and the next update succeeds."""
    content = world.target(1, ITEMS).read_bytes()
    world.server.overrides[ITEMS] = respond(content[: len(content) // 2], len(content))
    world.fetch_fails("a download failed")
    world.server.overrides[ITEMS] = respond(content[: len(content) // 2])
    world.fetch_fails("a file differs from its signed length or hash")
    world.server.overrides.clear()
    assert world.fetch() == world.slots.path(1)
    assert [path.name for path in world.slots.folder.iterdir()] == ["1"]


@pytest.mark.parametrize("name", ["timestamp.json", ITEMS])
def test_endless_data(world: ReleaseWorld, name: str) -> None:
    """An endless file is cut off at its signed length, and metadata at the limit of its role."""
    world.server.overrides[name] = respond(bytes(2**16), times=2**10)
    world.fetch_fails("a file is longer than its signed length")


def test_a_server_that_never_responds(world: ReleaseWorld) -> None:
    """A server that accepts and never responds costs the update's time limit and no more."""
    world.server.overrides[ITEMS] = never_respond
    world.fetch_fails("took longer than 2 s", timeout_s=2.0)


def test_no_server(world: ReleaseWorld) -> None:
    """Without a network the update is an error, and nothing else happens."""
    world.server.stop()
    world.fetch_fails("a download failed")


def test_signed_for_the_wrong_app(world: ReleaseWorld) -> None:
    """Signed custom fields that name this app do not help a manifest that names another: refused
    and blocked.
    """
    write_bundle(world.folder / "other", release=3, app="other")
    world.publish("other")
    world.sign(
        lambda targets: targets.targets["releases/3/manifest.json"].custom.update(app="demo")
    )
    world.fetch_fails("expected demo 3, found other 3", 1)
    assert 3 in world.slots.state().blocked
    assert world.fetch(1) is None


def test_mixed_release(world: ReleaseWorld) -> None:
    """A release whose signed targets are not the files of its manifest is refused: no mix and
    match.
    """
    world.publish("two")

    def mix(targets: Targets) -> None:
        one, two = (targets.targets[f"releases/{number}/{ITEMS}"] for number in (1, 2))
        two.hashes, two.length = one.hashes, one.length

    world.sign(mix)
    world.fetch_fails(f"{ITEMS}: expected a target with the length and SHA-256 of the manifest", 1)


def test_a_release_number_far_above_is_refused(world: ReleaseWorld) -> None:
    """A release number far above the present one is refused: it would lock out all honest ones."""
    write_bundle(world.folder / "far", release=20_000)
    world.publish("far")
    world.fetch_fails("expected at most 10000 above 1", 1)


def test_wrong_golden_vectors(world: ReleaseWorld) -> None:
    """A complete, signed bundle that computes other vectors is refused, blocked and downloaded only
    once.
    """
    golden = world.folder / "two" / "golden.json"
    content = msgspec.json.decode(golden.read_bytes())
    content["texts"][0]["vector"] = content["texts"][1]["vector"]
    golden.write_bytes(msgspec.json.encode(content))
    reseal(world.folder / "two")
    world.publish_unchecked("two")
    world.fetch_fails("release 2 is refused: golden text", 1)
    assert "golden text" in world.slots.state().blocked[2]
    world.server.downloads()
    assert world.fetch(1) is None
    assert world.server.downloads() == {}


def test_encoder_that_does_not_load(world: ReleaseWorld) -> None:
    """An encoder that does not load fails in the child process only, and its release is blocked."""
    (world.folder / "two" / "encoder.onnx").write_bytes(b"no model")
    reseal(world.folder / "two")
    world.publish_unchecked("two")
    world.fetch_fails("encoder.onnx: expected an ONNX model", 1)
    assert 2 in world.slots.state().blocked


@pytest.mark.parametrize("name", ["timestamp.json", "manifest.json", ITEMS])
def test_a_child_killed_during_a_download(
    world: ReleaseWorld, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A child that is killed during any download changes nothing, and the next update succeeds."""
    children: list[subprocess.Popen[Any]] = []

    class Watched(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            children.append(self)
            super().__init__(*arguments, **named)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    world.server.overrides[name] = respond(b"{", 1000, before_end=lambda: children[-1].kill())
    world.fetch_fails("killed by signal 9")
    world.server.overrides.clear()
    assert world.fetch() == world.slots.path(1)
    assert [path.name for path in world.slots.folder.iterdir()] == ["1"]
    assert not list((world.folder / "state" / "tuf").glob("tmp*"))


@pytest.mark.parametrize("signers", [[], ["root-2"], ["root-2", "root-2"], ["targets", "snapshot"]])
def test_one_root_key_is_not_enough(world: ReleaseWorld, signers: list[str]) -> None:
    """One stolen root key, even used twice, or any number of online keys cannot replace a key."""
    replace_timestamp_key(world, signers)
    world.refresh()
    world.fetch_fails("not signed by the trusted keys")
