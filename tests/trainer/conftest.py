"""Fixtures of the lab's tests: an S3 bucket on loopback, a disk whose power can be cut, a shell."""

from __future__ import annotations

import itertools
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.power import LoopDisk, plugged_in
from tests.support.shell import Shell

if TYPE_CHECKING:
    from sanderling_trainer.event_log.object_store import ObjectStore

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3, monkeypatch) -> str:
    """A new bucket's URL; the environment points to the server, as it would to S3."""
    name = f"bucket-{next(NUMBERS)}"
    urllib.request.urlopen(urllib.request.Request(f"{s3}/{name}", method="PUT"), timeout=10).close()
    for key, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    return f"s3://{name}/store"


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.fixture
def disk(tmp_path, request) -> Iterator[LoopDisk]:
    with plugged_in(tmp_path, request) as disk:
        yield disk


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path) -> ObjectStore:
    """Return an empty store, in a folder and in a bucket."""
    from sanderling_trainer.event_log.object_store import open_store

    return open_store(
        str(tmp_path) if request.param == "folder" else request.getfixturevalue("bucket")
    )
