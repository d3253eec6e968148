"""A page in a real browser posts to a collector of another origin, also while it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from sanderling.events.schema import Outcome
from sanderling_trainer.event_log.reader import read_segments
from tests.support import pages
from tests.support.javascript import needs_node
from tests.support.servers import Server
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.lab, needs_node, pages.needs_browser]

OPEN = """
async (collector) => {
  const { Engine } = await import('/engine/js/dist/src/index.js');
  window.engine = await Engine.open('/engine/sanderling/cli/tiny_bundle/', {
    state: 'cross-origin', collector, token: 'secret', mayUpload: () => window.mayUpload !== false,
  });
}
"""
REWARD = """
async () => {
  const slate = await engine.recommend({ user: 'ada', k: 3 });
  const receipt = await engine.reward(slate, slate.items[0], 1);
  return receipt.stored ? slate.decision : receipt.reason;
}
"""
REWARD_AND_LEAVE = f"""
async () => {{
  window.mayUpload = false; // what arrives was sent by the end of the page
  await ({REWARD})();
  window.mayUpload = true;
  location.href = 'about:blank';
}}
"""


@pytest.fixture
def site() -> Iterator[pages.ModuleServer]:
    """The origin of the page."""
    server = pages.ModuleServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def collector(tmp_path, site) -> Iterator[Server]:
    """A collector of another origin that lets the page's in."""
    server = Server(tmp_path / "store", origins=[site.url.rstrip("/")])
    yield server
    server.stop()


def rewarded(collector: Server) -> Counter[str]:
    """Return how many outcomes each decision has at the collector."""
    log = read_segments(str(collector.folder))
    outcomes = [each for events in log.events.values() for each in events]
    return Counter(each.decision for each in outcomes if isinstance(each, Outcome))


def test_a_page_posts_to_another_origin_and_at_its_end(compiled, chromium, site, collector):
    """Each reward is at the collector once: those flushed, those of the page's last moment, and
    those sent again after the next opening."""
    context = chromium.new_context()
    tab = context.new_page()
    tab.goto(f"{site.url}runner")
    url = f"http://127.0.0.1:{collector.port}/v1"
    tab.evaluate(OPEN, url)
    decisions = [tab.evaluate(REWARD)]
    assert tab.evaluate("engine.flush()")
    assert rewarded(collector) == Counter(decisions)

    with tab.expect_navigation(url="about:blank"):
        tab.evaluate(f"void ({REWARD_AND_LEAVE})()")
    assert wait_until(lambda: sorted(rewarded(collector).values()) == [1, 1], 20)

    tab.goto(f"{site.url}runner")
    tab.evaluate(OPEN, url)
    decisions.append(tab.evaluate(REWARD))
    assert tab.evaluate("engine.flush()")
    assert sorted(rewarded(collector).values()) == [1, 1, 1]
    assert set(decisions) < set(rewarded(collector))
    log = read_segments(str(collector.folder))
    assert (log.missing, log.conflicts) == (0, 0)
    assert log.duplicates == 0  # the collector knew again what the page sent at its end
    assert tab.evaluate("engine.counters().upload.duplicates") == 2
    context.close()


def test_a_page_of_an_origin_that_is_not_let_in_keeps_its_rewards(
    compiled, chromium, site, tmp_path
):
    """They stay stored, and the counters say that nothing could be sent."""
    server = Server(tmp_path / "store", origins=["https://shop.example"])
    context = chromium.new_context()
    tab = context.new_page()
    tab.goto(f"{site.url}runner")
    tab.evaluate(OPEN, f"http://127.0.0.1:{server.port}/v1")
    tab.evaluate(REWARD)
    assert not tab.evaluate("engine.flush(2)")
    counters = tab.evaluate("engine.counters()")
    assert counters["outbox"]["pending"] == 2
    assert "Failed to fetch" in counters["upload"]["lastProblem"]
    context.close()
    server.stop()
