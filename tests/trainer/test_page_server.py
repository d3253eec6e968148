"""The server of the page that learns: one origin for page, bundle and collector."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from sanderling.cli.tiny import BUNDLE
from sanderling_trainer.demo.page_server import newest_release, page_app, page_token
from tests.support.pages import TOKEN, PageServer
from tests.support.servers import events, packed


@pytest.fixture
def page(tmp_path):
    """A folder as `make page` leaves it, with a page of one line and a bundle of its own."""
    folder = tmp_path / "site"
    (folder / "bundle").mkdir(parents=True)
    (folder / "bundle" / "manifest.json").write_text("{}")
    (folder / "index.html").write_text("<p>the page")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def get(page, tmp_path):
    """Requests to the server: `get(path)` returns the answer."""
    server = PageServer(tmp_path / "events", page)
    server.start()

    def answer(path, body=None, headers=None):
        request = urllib.request.Request(server.url + path, body, headers or {})
        return urllib.request.urlopen(request, timeout=30)

    yield answer
    server.stop()


def test_page_bundle_and_settings_come_from_one_origin(get):
    """The page is that of the folder; bundle and settings are those of the server."""
    assert get("").read() == b"<p>the page"
    config = {"bundle": "bundle/", "collector": "v1", "token": TOKEN}
    assert json.load(get("config.json")) == config
    manifest = get("bundle/manifest.json").read()
    assert manifest == (BUNDLE / "manifest.json").read_bytes()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get("nothing")


def test_every_answer_isolates_the_page(get):
    """Pages with these headers have exact clocks; nothing is used without asking again."""
    for path in ("", "bundle/manifest.json", "config.json"):
        headers = get(path).headers
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-embedder-policy"] == "require-corp"
        assert headers["cache-control"] == "no-cache"


def test_the_collector_of_the_page_stores_events(get, tmp_path):
    """Batches to /v1/events become segments."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-encoding": "zstd"}
    answer = json.load(get("v1/events", packed(*events(3)), headers))
    assert [verdict["verdict"] for verdict in answer["verdicts"]] == ["ok"] * 3
    assert len(list((tmp_path / "events" / "segments").glob("*/*"))) == 1


def test_what_is_missing_is_named(page, tmp_path):
    """Without a built page, or without a bundle, the server does not start."""
    with pytest.raises(FileNotFoundError, match="make page"):
        page_app(BUNDLE, tmp_path / "events", "secret", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"found no manifest\.json"):
        page_app(tmp_path, tmp_path / "events", "secret", page)


def test_the_command_serves_until_ctrl_c(page, tmp_path):
    """It says where the page is, and at the end where the segments are."""
    code = f"""
from pathlib import Path
from sanderling_trainer.cli.page import show_page
from sanderling_trainer.demo import page_server

page_server.PAGE = Path({str(page)!r})
show_page(Path({str(tmp_path / "out")!r}), None, 0, as_json=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    address = process.stderr.readline().split()[0]
    assert urllib.request.urlopen(address, timeout=30).read() == b"<p>the page"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(output) == {
        "bundle": str(BUNDLE),
        "events": str(tmp_path / "out" / "page" / "events"),
        "stopped": True,
    }


def test_the_token_stays_the_same(tmp_path):
    """A page that was off line finds its token accepted by the next server."""
    token = page_token(tmp_path / "page")
    assert len(token) == 32
    assert page_token(tmp_path / "page") == token
    assert (tmp_path / "page" / "token").stat().st_mode & 0o777 == 0o600


def test_the_newest_release_has_the_highest_number(tmp_path):
    """Releases are compared as numbers; a folder without any gives none."""
    assert newest_release(tmp_path / "none") is None
    for release in (2, 10, 9):
        folder = tmp_path / str(release)
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps({"release": release}))
    assert newest_release(tmp_path) == tmp_path / "10"
