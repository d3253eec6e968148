"""Reads HTML pages: what is wrong with their markup, and their text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "link", "hr", "img", "input"}
EXTERNAL = re.compile(r"https?:|(?:src|href)\s*=|@import|url\(", re.IGNORECASE)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self._levels: list[int] = []
        self._needs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        if len({*names}) != len(names):
            self.faults.append(f"<{tag}>: an attribute twice")
        if self._needs and self._needs[-1] != tag:
            self.faults.append(f"expected <{self._needs[-1]}>, found <{tag}>")
        self._needs = []
        if tag == "table":
            self._needs = ["caption"]
        if tag == "svg" and ("role", "img") in attrs:
            self._needs = ["title"]
        elif tag == "svg" and ("aria-hidden", "true") not in attrs:
            self.faults.append("an <svg> without a text alternative that is not hidden")
        if re.fullmatch("h[1-6]", tag):
            self._levels.append(int(tag[1]))
            if self._levels[0] != 1 or self._levels[-1] > max([0, *self._levels[-2:-1]]) + 1:
                self.faults.append(f"heading <{tag}> after {self._levels[:-1]}")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if "svg" not in self.open:
            self.faults.append(f"<{tag}/> outside of svg")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes another element")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def faults_of(html: str) -> list[str]:
    """Return what is wrong with a page: unbalanced elements, doubled attributes, skipped headings,
    tables without captions, charts without text, scripts, and references to anything outside."""
    page = _Page()
    page.feed(html)
    page.close()
    found = page.faults + [f"<{tag}> is open" for tag in page.open]
    if not html.startswith("<!doctype html>") or page.tags.count("h1") != 1:
        found.append("expected a doctype and one h1")
    found += [f"<{tag}>" for tag in page.tags if tag in {"script", "link", "img", "iframe"}]
    return found + EXTERNAL.findall(html)


def text_of(html: str) -> str:
    """Return the text of a page, with single spaces between words."""
    page = _Page()
    page.feed(html)
    page.close()
    return " ".join(" ".join(page.text).split())
