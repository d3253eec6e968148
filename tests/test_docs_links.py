"""Every relative link of the documents leads somewhere, also to a heading; without a network."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.support.doc_blocks import ROOT, pages
from tools.docs_site import commands

PAGES = pages()

FENCE = re.compile(r"^ *(`{3,}).*?^ *\1`*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\]\(\s*([^)\s]+)\s*\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)
MADE = {f"docs/{path}" for path in commands.pages()} | {
    f"docs/notebooks/{path.stem}.md" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")
}
"""Pages that exist on the site alone."""


def links(page: str) -> list[str]:
    """Return the links of a page, without those in code."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return LINK.findall(CODE.sub("", FENCE.sub("", text)))


@cache
def anchors(page: str) -> set[str]:
    """Return the anchors of a page's different headings, as GitHub and the site make them."""
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    found: set[str] = set()
    for heading in HEADING.findall(text):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).strip().replace(" ", "-")
        found.add(anchor)
    return found


def broken(page: str, link: str) -> str:
    """Return why a link leads nowhere, or nothing."""
    if re.match(r"[a-z]+:", link):
        return ""
    name, _, anchor = link.partition("#")
    target = ((ROOT / page).parent / name).resolve() if name else ROOT / page
    if not target.is_relative_to(ROOT):
        return "is outside the repository"
    path = target.relative_to(ROOT).as_posix()
    if path in MADE:
        return ""
    if not target.exists():
        return "does not exist"
    if anchor and target.suffix == ".md" and anchor not in anchors(path):
        return f"has no heading with the anchor {anchor}"
    return ""


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page):
    """No relative link of a document is broken, and no anchor."""
    found = {link: broken(page, link) for link in links(page)}
    assert not {link: why for link, why in found.items() if why}


def test_a_broken_link_is_noticed():
    """The check above fails for a missing file, a missing heading, and a path that leaves us."""
    assert broken("README.md", "docs/NOWHERE.md")
    assert broken("README.md", "docs/MATH.md#no-such-heading")
    assert broken("docs/MATH.md", "../../elsewhere.md")
    assert not broken("README.md", "docs/MATH.md#exploration")
