"""Creating, publishing and rotating are killed at every operation on a file: the same call again
ends the work, and devices never see anything else than the old or the new release.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.releases import metadata
from sanderling_trainer.releases.keys import KeyFolder
from sanderling_trainer.releases.repository import ReleaseRepository, releases_in
from sanderling_trainer.releases.rotation import rotate_keys
from tests.support.releases import make_repository, root_keys_in
from tests.support.store_points import StorePoints

pytestmark = [pytest.mark.lab, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

Work = Callable[[Path], object]


def create(folder: Path) -> None:
    make_repository(folder)


def publish(folder: Path) -> None:
    store = LocalObjectStore(folder / "repository")
    ReleaseRepository(store, KeyFolder(folder / "keys")).publish(folder / "two")


def rotate(folder: Path) -> None:
    store = LocalObjectStore(folder / "repository")
    root_keys = root_keys_in(folder / "of-keys")
    rotate_keys(store, KeyFolder(folder / "keys"), root_keys, ["root-2", "timestamp"])


class Files(FetcherInterface):
    """Fetches from a folder in place of a server."""

    def _fetch(self, url: str):
        path = Path(url.removeprefix("file://"))
        if not path.is_file():
            from tuf.api.exceptions import DownloadHTTPError

            raise DownloadHTTPError("no such file", 404)
        yield path.read_bytes()


def on_device(folder: Path, root: bytes) -> set[int]:
    """Return the releases that a new device sees which trusts a root; all their files are there."""
    trust = folder / "trust"
    shutil.rmtree(trust, ignore_errors=True)
    trust.mkdir()
    repository = f"file://{folder}/repository"
    updater = Updater(
        str(trust), f"{repository}/metadata/", str(trust), f"{repository}/targets/",
        fetcher=Files(), bootstrap=root,
    )  # fmt: skip
    updater.refresh()
    targets = metadata.read_state(LocalObjectStore(folder / "repository")).targets
    for path in targets.targets:
        target = updater.get_targetinfo(path)
        assert target is not None
        updater.download_target(target, str(trust / "file"))
    return set(releases_in(targets))


def run(work: Work, folder: Path, **points) -> int:
    """Run the work in a child process with these crash points; return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            StorePoints(folder, **points).watch()
            work(folder)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def crashes(work: Work, before: Path | None, folder: Path, step: int):
    """Yield a folder for each `step`-th passing of a point, in which the work was killed there."""
    plain = folder / "plain"
    shutil.copytree(before, plain) if before else plain.mkdir(parents=True)
    assert run(work, plain, record=folder / "points") == 0
    passings = (folder / "points").read_text().split("\n")[:-1]
    seen: Counter[str] = Counter()
    for number, point in enumerate(passings):
        seen[point] += 1
        if number % step:
            continue
        crashed = folder / f"crash-{number}"
        shutil.copytree(before, crashed) if before else crashed.mkdir()
        assert run(work, crashed, point=point, nth=seen[point]) == 137, point
        yield crashed
        shutil.rmtree(crashed)


@pytest.fixture
def published(tmp_path: Path, release_folder: Path, monkeypatch) -> Path:
    """A repository with release 1. The golden vectors, which need threads, come before any write:
    a child of a fork does without them.
    """
    monkeypatch.setattr("sanderling_trainer.releases.repository._check_golden", lambda bundle: None)
    shutil.copytree(release_folder, tmp_path / "published")
    return tmp_path / "published"


def check_creation(folder: Path) -> None:
    keys = {path: path.read_bytes() for path in folder.rglob("*.pem")}
    create(folder)
    assert keys.items() <= {path: path.read_bytes() for path in folder.rglob("*.pem")}.items()
    assert len(list(folder.rglob("*.pem"))) == 6
    assert on_device(folder, (folder / "repository" / "root.json").read_bytes()) == set()


def check_publication(folder: Path) -> None:
    root = (folder / "repository" / "root.json").read_bytes()
    assert on_device(folder, root) in ({1}, {1, 2})
    publish(folder)
    assert on_device(folder, root) == {1, 2}


def check_rotation(folder: Path) -> None:
    root = (folder / "repository" / "metadata" / "1.root.json").read_bytes()
    rotate(folder)
    assert on_device(folder, root) == {1}
    assert metadata.read_root(LocalObjectStore(folder / "repository")).version <= 3
    assert list(folder.rglob("*.next.pem")) == []
    publish(folder)
    assert on_device(folder, root) == {1, 2}


WORKS = [(create, check_creation), (publish, check_publication), (rotate, check_rotation)]


@pytest.mark.parametrize(("work", "check"), WORKS, ids=lambda function: function.__name__)
def test_killed_work_can_be_repeated(tmp_path: Path, published: Path, work, check) -> None:
    """Killed at every fifth operation on a file, the same call succeeds: a creation with the keys
    that it had made; a publication of which devices saw all or nothing; a rotation with one new
    root, or two, which devices follow.
    """
    before = None if work is create else published
    count = sum(1 for folder in crashes(work, before, tmp_path / "w", 5) if check(folder) is None)
    assert count >= 15


@pytest.mark.soak
@pytest.mark.parametrize(("work", "check"), WORKS, ids=lambda function: function.__name__)
def test_killed_work_can_be_repeated_everywhere(
    tmp_path: Path, published: Path, work, check
) -> None:
    """The same at every operation."""
    before = None if work is create else published
    count = sum(1 for folder in crashes(work, before, tmp_path / "w", 1) if check(folder) is None)
    print(f"{work.__name__}: {count} kills")
    assert count >= 75


def test_two_publishers_lose_nothing(tmp_path: Path, published: Path) -> None:
    """Another process publishes between reading and signing: both changes are published."""
    store = LocalObjectStore(published / "repository")
    releases = ReleaseRepository(store, KeyFolder(published / "keys"))
    once = [releases.set_rollout]

    class Overtaken(LocalObjectStore):
        def create(self, name: str, data: bytes) -> None:
            if once:
                once.pop()(1, 30)
            super().create(name, data)

    mine = ReleaseRepository(Overtaken(store.root), KeyFolder(published / "keys"))
    mine.publish(published / "two", 10)
    found = releases_in(metadata.read_state(store).targets)
    assert {number: fields["rollout"] for number, fields in found.items()} == {1: 30, 2: 10}


def test_a_bucket_is_a_repository_too(tmp_path: Path, published: Path, bucket: str) -> None:
    """In an object store a repository is created, published in, rolled out and refreshed, and a
    device sees it.
    """
    from sanderling_trainer.event_log.object_store import open_store
    from sanderling_trainer.releases.create import create_repository

    store = open_store(bucket)
    keys, root_keys = KeyFolder(tmp_path / "keys"), root_keys_in(tmp_path)
    root = create_repository(store, keys, root_keys)
    assert create_repository(store, keys, root_keys) == root
    releases = ReleaseRepository(store, keys)
    assert releases.publish(published / "one").is_new
    assert not releases.publish(published / "one").is_new
    releases.set_rollout(1, 20)
    releases.refresh()
    rotate_keys(store, keys, root_keys, ["targets"])
    with pytest.raises(FileExistsError):
        store.replace("metadata/timestamp.json", b"new", b"what was read")

    for name in [*store.names("metadata"), *store.names("targets")]:
        LocalObjectStore(tmp_path / "repository").put(name, store.get(name))
    assert on_device(tmp_path, root) == {1}
