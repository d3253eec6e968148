"""Releases end to end: a real repository over a real socket, fetched by the real child process."""

from __future__ import annotations

import threading

import msgspec
import pytest

from sanderling.bundle.reader import Bundle
from sanderling.releases.update_worker import in_rollout
from sanderling_trainer.releases.errors import ReleaseError
from tests.support.bundles import write_bundle
from tests.support.releases import ITEMS, ReleaseWorld

pytestmark = pytest.mark.lab


def test_the_newest_release_is_installed_whole(world: ReleaseWorld) -> None:
    """The newest release is installed, verified and byte for byte what was published; after that
    there is none.
    """
    world.publish("two")
    folder = world.fetch()
    assert folder == world.slots.path(2)
    assert Bundle.open(folder, verify=True).manifest == Bundle.open(world.folder / "two").manifest
    assert sorted(path.name for path in world.slots.folder.iterdir()) == ["2"]
    assert world.fetch(2) is None


def wait_for_confirmation() -> None:
    """Wait until the engine has stored that its new bundle served."""
    for thread in threading.enumerate():
        if thread.name == "sanderling-confirm":
            thread.join(10)


def test_update_between_two_requests(world: ReleaseWorld) -> None:
    """The engine swaps between two requests, confirms by serving, reopens with the release, and
    rolls back.
    """
    world.publish("two")
    with world.engine() as engine:
        assert engine.recommend("anna").release == 1
        assert engine.update() == 2
        assert not world.slots.state().confirmed
        assert engine.recommend("anna").release == 2
        wait_for_confirmation()
        assert (world.slots.state().confirmed, world.slots.state().highest) == (True, 2)
    with world.engine() as engine:
        assert engine.release == 2
        assert engine.rollback() == 1
        assert engine.recommend("anna").release == 1
        assert engine.update() is None


def test_a_short_process_still_confirms(world: ReleaseWorld) -> None:
    """A process that serves once and closes has confirmed the release: the next start keeps it."""
    world.publish("two")
    with world.engine() as engine:
        engine.update()
        engine.recommend("anna")
    assert world.slots.state().confirmed


def test_an_update_that_never_served_is_tried_again(world: ReleaseWorld) -> None:
    """Closing before the first request leaves the release unconfirmed and unblocked."""
    world.publish("two")
    with world.engine() as engine:
        engine.update()
    for _ in range(2):
        with world.engine() as engine:
            assert engine.release == 2
    assert not world.slots.state().confirmed


def test_unchanged_files_are_not_downloaded(world: ReleaseWorld) -> None:
    """Files of the app's bundle or an installed one are copied; the others are downloaded once."""
    world.fetch(active_folder=str(world.folder / "one"))
    assert world.server.downloads() == {"manifest.json": 1}
    world.publish("two")
    world.fetch(1)
    downloads = world.server.downloads()
    assert downloads == {"manifest.json": 1, ITEMS: 1, "policy.safetensors": 1, "golden.json": 1}


def test_a_damaged_local_file_is_downloaded(world: ReleaseWorld) -> None:
    """A file on the device is reused only if its hash is the signed one."""
    rotten = world.folder / "one" / "encoder.onnx"
    content = bytearray(rotten.read_bytes())
    content[100] ^= 1
    rotten.write_bytes(content)
    folder = world.fetch(active_folder=str(world.folder / "one"))
    assert world.server.downloads() == {"manifest.json": 1, "encoder.onnx": 1}
    assert folder is not None
    Bundle.open(folder, verify=True)


def test_another_app(world: ReleaseWorld) -> None:
    """A release for another app is ignored, in the same repository and with the same keys."""
    write_bundle(world.folder / "other", release=3, app="other")
    world.publish("other")
    assert world.fetch(1) is None
    assert world.fetch(1, app="other") == world.slots.path(3)


def test_a_repository_of_another_app(world: ReleaseWorld) -> None:
    """A repository with releases of other apps alone is an error that names them."""
    world.fetch_fails(
        "expected releases of the app radio, found only those of demo; check the address",
        app="radio",
    )


def test_a_release_for_a_later_engine(world: ReleaseWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release for a later engine costs one small download, and is not blocked: the app may be
    updated.
    """
    with monkeypatch.context() as later:
        later.setattr("sanderling.bundle.reader.__version__", "9.0.0")
        write_bundle(world.folder / "future", release=3, min_engine="9.0.0")
        world.publish("future")
    world.fetch_fails(r"expected an engine of at least 9\.0\.0", 1)
    assert world.server.downloads() == {"manifest.json": 1}
    assert world.slots.state().blocked == {}


def test_blocked_release(world: ReleaseWorld) -> None:
    """A release that failed on this device is not fetched again; the next one is."""
    world.publish("two")
    world.slots.block(2, "scores were NaN")
    assert world.fetch(1) is None
    assert world.server.downloads() == {}
    write_bundle(world.folder / "three", release=3, seed=2)
    world.publish("three")
    assert world.fetch(1) == world.slots.path(3)


def test_rollout(world: ReleaseWorld) -> None:
    """A release goes to its share of the installs; raising the percentage only adds installs, and 0
    withdraws it.
    """
    installs = [f"{number:032x}" for number in range(2000)]
    taken = [
        {install for install in installs if in_rollout(install, 2, percent)}
        for percent in (0, 10, 50, 100)
    ]
    assert [len(share) for share in (taken[0], taken[3])] == [0, 2000]
    assert taken[0] <= taken[1] <= taken[2] <= taken[3]
    assert 140 < len(taken[1]) < 260
    world.publish("two", 10)
    inside, outside = min(taken[1]), min(taken[2] - taken[1])
    assert world.fetch(1, install=outside) is None
    assert world.fetch(1) is None
    assert world.fetch(1, install=inside) == world.slots.path(2)
    world.releases.set_rollout(2, 0)
    assert world.fetch(1, install=inside) is None


def test_impossible_releases_are_refused(world: ReleaseWorld) -> None:
    """A used number with other files, over 100 percent, and an unknown release are refused."""
    write_bundle(world.folder / "another", release=1, seed=5)
    with pytest.raises(ReleaseError, match="expected a number above 1"):
        world.publish("another")
    with pytest.raises(ReleaseError, match="percentage from 0 to 100"):
        world.publish("two", 101)
    with pytest.raises(ReleaseError, match=r"published release \(1\), found 9"):
        world.releases.set_rollout(9, 50)
    assert world.publish("two").release == 2


def test_the_same_release_twice_is_success(world: ReleaseWorld) -> None:
    """Publishing the same bundle again changes nothing, also below a newer one, and neither lowers
    nor raises its percentage; a file that is missing in the repository comes back.
    """
    world.publish("two", 10)
    world.releases.set_rollout(2, 50)
    before = (world.repository / "metadata" / "timestamp.json").read_bytes()
    published = world.target(2, ITEMS)
    content = published.read_bytes()
    published.unlink()
    done = world.publish("two", 10)
    assert (done.release, done.percent, done.is_new) == (2, 50, False)
    assert world.publish("one").is_new is False
    assert (world.repository / "metadata" / "timestamp.json").read_bytes() == before
    assert published.read_bytes() == content


def test_wrong_golden_vectors_are_not_signed(world: ReleaseWorld) -> None:
    """A bundle that computes other vectors than the lab did leaves no byte in the repository."""
    golden = world.folder / "two" / "golden.json"
    content = msgspec.json.decode(golden.read_bytes())
    content["texts"][0]["vector"] = content["texts"][1]["vector"]
    world.replace_file("two", "golden.json", msgspec.json.encode(content))
    before = {path: path.read_bytes() for path in world.repository.rglob("*") if path.is_file()}
    with pytest.raises(ReleaseError, match="expected its golden vectors, found: golden text"):
        world.publish("two")
    after = {path: path.read_bytes() for path in world.repository.rglob("*") if path.is_file()}
    assert after == before


def test_only_the_owner_can_read_the_keys(world: ReleaseWorld) -> None:
    """Private keys have mode 0600, and none of them lies where the server can see it."""
    keys = [*world.keys.iterdir(), *world.root_keys.folder.iterdir()]
    assert len(keys) == 6
    assert {oct(path.stat().st_mode)[-3:] for path in keys} == {"600"}
    assert not list(world.repository.rglob("*.pem"))
