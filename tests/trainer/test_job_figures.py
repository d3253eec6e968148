"""What jobs push to a Pushgateway, received by a server of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sanderling_trainer.jobs.figures import FIGURES, NAME, VARIABLE, pushed_figures
from tests.support.bundles import write_bundle
from tests.support.fakes import FakeClock
from tests.support.releases import make_repository
from tests.support.shell import Shell

pytestmark = pytest.mark.lab


class Gateway(ThreadingHTTPServer):
    """Keeps the pushed figures by job, as a Pushgateway does on POST."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs: dict[str, dict[str, float]] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        lines = [line.split(" ") for line in body.splitlines() if not line.startswith("#")]
        figures = self.server.jobs.setdefault(self.path.removeprefix("/metrics/job/"), {})
        figures.update({name: float(value) for name, value in lines})
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    server = Gateway()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv(VARIABLE, server.url)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_failure_does_not_hide_the_last_success(gateway: Gateway) -> None:
    """A success pushes its figures and its time; a failure afterwards adds its own time, and is
    raised.
    """
    clock = FakeClock()
    with pushed_figures("compact", clock) as figures:
        figures["events"] = 12
    succeeded = clock.wall_ms() / 1000
    clock.advance(60)
    with pytest.raises(OSError, match="disk"), pushed_figures("compact", clock):
        raise OSError("disk")
    found = gateway.jobs["sanderling-compact"]
    assert found[f"{NAME}events"] == 12
    assert found[f"{NAME}last_success_timestamp_seconds"] == succeeded
    assert found[f"{NAME}last_failure_timestamp_seconds"] == succeeded + 60
    assert found[f"{NAME}peak_memory_bytes"] > 2**20


def test_without_a_gateway_the_job_runs(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A gateway that is down, or a wrong URL, is a warning; without the variable none is asked."""
    for url in ("http://127.0.0.1:1", "no url at all"):
        monkeypatch.setenv(VARIABLE, url)
        with pushed_figures("compact"):
            pass
        assert f"{url}: the figures of compact were not pushed" in caplog.text
    monkeypatch.delenv(VARIABLE)
    with pushed_figures("compact"):
        pass
    assert gateway.jobs == {}


def test_commands_push(
    gateway: Gateway, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compaction, rotation, publication and refreshing push, each under a name of its own."""
    monkeypatch.chdir(tmp_path)
    make_repository(Path())
    write_bundle(Path("bundle"), release=3)
    signed = ("--repository", "repository", "--keys", "keys")
    shell.json("release", "publish", "--bundle", "bundle", *signed)
    shell.json("release", "refresh", *signed)
    shell.json("compact", "--store", "events")
    shell.json("installs", "rotate", "--store", "events")
    assert sorted(gateway.jobs) == [
        f"sanderling-{job}" for job in ("compact", "publish", "refresh", "rotate")
    ]
    assert gateway.jobs["sanderling-publish"][f"{NAME}release"] == 3
    refreshed = gateway.jobs["sanderling-refresh"]
    root, online = (
        refreshed[f"{NAME}{which}_expires_timestamp_seconds"] for which in ("root", "online")
    )
    assert root > online > refreshed[f"{NAME}last_success_timestamp_seconds"]
    names = {name for job in gateway.jobs.values() for name in job}
    assert names <= {NAME + figure for figure in FIGURES}
