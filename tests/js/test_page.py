"""The page that learns, in a real browser: off line, after reloads, by keyboard, in every width."""

from __future__ import annotations

import pytest
from starlette.responses import Response

from tests.support import pages
from tests.support.javascript import needs_node

pytestmark = [pytest.mark.browser, pytest.mark.lab, needs_node, pages.needs_browser]


def test_clicks_change_the_shelf_at_once(page_server, browser):
    """Five likes of books of the sea bring all seven others of them, without the network."""
    tab = pages.open_page(browser(), page_server.url)
    pages.explore(tab, 0.0)
    page_server.stop()
    assert pages.counts(tab)["sea"] <= 3
    pages.choose(tab, "sea")
    for _ in range(5):
        pages.judge(tab, pages.shelf(tab)[0])
    pages.choose(tab, "sea")
    assert pages.counts(tab)["sea"] == 7
    assert pages.counts(tab).total() == 12


def test_what_is_not_for_somebody_goes(page_server, browser):
    """A rejected item leaves the shelf, and is listed as such."""
    tab = pages.open_page(browser(), page_server.url)
    item = pages.shelf(tab)[3]
    title = tab.inner_text(f'#cards > li[data-id="{item}"] h2')
    pages.judge(tab, item, "reject")
    assert item not in pages.shelf(tab)
    assert tab.inner_text("#taste .not") == title


def test_the_page_opens_and_learns_without_a_server(page_server, browser):
    """Once visited, the page opens, recommends, finds and stores rewards with the server gone; when
    the server is back, it has every reward once."""
    tab = pages.open_page(browser(), page_server.url)
    pages.wait_for_worker(tab)
    page_server.stop()

    tab.reload()
    tab.wait_for_selector(".card")
    stored = pages.collect_stored(tab)
    for _ in range(4):
        pages.judge(tab, pages.shelf(tab)[0])
    tab.fill("#query", "moby dick")
    tab.wait_for_function("document.querySelector('#shelf-title').textContent.includes('moby')")
    assert "moby-dick" in pages.shelf(tab)
    assert "waiting" in tab.inner_text("#connection")

    page_server.start()
    pages.wait_until_sent(tab)
    assert len(stored) == 4
    assert pages.times_received(page_server.store, stored) == [1] * 4


def test_a_failing_server_takes_nothing_away(page_server, browser):
    """A server that answers every request with 502 is as good as none: what was kept stays."""
    tab = pages.open_page(browser(), page_server.url)
    pages.wait_for_worker(tab)
    page_server.stop()
    failing = pages.SocketServer(lambda: Response("bad gateway", 502), page_server.port)
    failing.start()
    tab.reload()
    tab.wait_for_selector(".card")
    failing.stop()

    tab.reload()
    tab.wait_for_selector(".card")
    assert len(pages.shelf(tab)) == 12


def test_a_reload_keeps_what_was_learned(page_server, browser):
    """The greedy shelf after a reload is the one before it."""
    tab = pages.open_page(browser(), page_server.url)
    pages.explore(tab, 0.0)
    for _ in range(3):
        pages.judge(tab, pages.shelf(tab)[1])
    before = pages.shelf(tab)
    tab.reload()
    tab.wait_for_selector(".card")
    assert pages.shelf(tab) == before
    assert tab.locator("#taste li").count() == 3


def test_rules_hold_for_every_card(page_server, browser):
    """A chip and a range leave only what meets both; taking them back brings all others."""
    tab = pages.open_page(browser(), page_server.url)
    pages.choose(tab, "sea")
    assert set(pages.counts(tab)) == {"sea"}
    tab.locator(".span input").first.fill("1880")
    tab.wait_for_function("document.querySelector('.span output').textContent === 'Since 1880s'")
    years = "[...document.querySelectorAll('.cover p span:last-child')].map(y => y.textContent)"
    tab.wait_for_function(f"{years}.every(year => year >= '1880')")
    assert 0 < len(pages.shelf(tab)) < 12
    assert set(pages.counts(tab)) == {"sea"}

    pages.choose(tab, "sea")
    tab.evaluate("document.querySelector('#announcer').textContent = ''")
    tab.locator(".span input").first.fill(tab.get_attribute(".span input", "min"))
    tab.wait_for_function("document.querySelector('#announcer').textContent === '12 titles.'")
    assert tab.inner_text("#shelf-note") == "12 of 96"


def test_the_keyboard_is_enough(page_server, browser):
    """Arrows walk over the cards, Enter likes, W says why, Esc closes, / searches."""
    tab = pages.open_page(browser(), page_server.url)
    tab.locator(".card").first.focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowDown")
    columns = pages.columns(tab)
    focused = "document.activeElement.closest('li')?.dataset.id"
    item = pages.shelf(tab)[1 + columns]
    assert tab.evaluate(focused) == item

    tab.keyboard.press("w")
    tab.wait_for_selector("dialog[open] .sentence")
    tab.keyboard.press("Escape")
    assert tab.evaluate(focused) == item
    tab.keyboard.press("Enter")
    tab.wait_for_selector(f'#cards > li[data-id="{item}"]', state="detached")
    assert tab.evaluate(focused) == pages.shelf(tab)[1 + columns]
    assert tab.inner_text("#announcer").startswith("Liked: ")
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "query"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_out(page_server, browser, scheme):
    """axe finds no fault of contrast, names or roles, with the dialog and without."""
    tab = pages.open_page(browser(color_scheme=scheme, reduced_motion="reduce"), page_server.url)
    pages.judge(tab, pages.shelf(tab)[0])
    assert pages.accessibility_faults(tab) == []
    tab.locator(".card").first.press("w")
    tab.wait_for_selector("dialog[open]")
    assert pages.accessibility_faults(tab) == []


def test_the_page_fits_every_width(page_server, browser):
    """Nothing needs scrolling to the side, and rows of cards are full."""
    tab = pages.open_page(browser(), page_server.url)
    for width, columns in ((320, 2), (360, 2), (600, 3), (768, 4), (1280, 4), (1920, 6)):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert pages.columns(tab) == columns
