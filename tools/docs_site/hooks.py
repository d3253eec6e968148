"""What mkdocs does not do by itself: pages of commands, notebooks and files outside docs/, pictures
that follow the page's colours.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from tools.docs_site import commands, notebooks, outside

DOCS = outside.ROOT / "docs"
APPLICATIONS = outside.ROOT / "examples"

PICTURE = re.compile(r'<img alt="([^"]*)" src="([^"]+)\.svg" ?/?>')
STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)
NAMED_PAGE = re.compile(r"docs/([A-Z]+)\.md")
"""A page that a docstring names."""


def on_config(config: Any) -> Any:
    """Put the generated pages into the navigation."""
    made: dict[str, list[Any]] = {
        "Commands": list(commands.pages()),
        "Applications": [
            {_title(outside.ROOT / folder / "README.md"): outside.site_path(folder)}
            for folder in _applications()
        ],
    }
    config.nav = [_filled(entry, made) for entry in config.nav]
    return config


def _filled(entry: Any, made: dict[str, list[Any]]) -> Any:
    """Return an entry of the navigation in which `Name: []` has its generated pages."""
    if not isinstance(entry, dict):
        return entry
    [(title, below)] = entry.items()
    if below == []:
        return {title: made[title]}
    if isinstance(below, list):
        return {title: [_filled(child, made) for child in below if child != {"Applications": []}]}
    return entry


def _applications() -> list[str]:
    """Return the folders of examples/ that have a README, itself first."""
    folders = [path.parent.name for path in sorted(APPLICATIONS.glob("*/README.md"))]
    return ["examples", *(f"examples/{name}" for name in folders)]


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and those of files to which pages link."""

    def add(path: str, content: str | bytes) -> None:
        files.append(File.generated(config, path, content=content))

    for path, text in commands.pages().items():
        add(path, text)

    for notebook in sorted(DOCS.glob("notebooks/*.ipynb")):
        text, pictures = notebooks.page_of(notebook)
        add(f"notebooks/{notebook.stem}.md", text)
        for name, content in pictures.items():
            add(f"notebooks/{name}", content)

    waiting = {
        target
        for file in files.documentation_pages()
        for target in outside.links_of(file.content_string, file.src_uri)
    }
    waiting |= set(_applications())
    while waiting:
        target = waiting.pop()
        path = outside.site_path(target)
        if files.get_file_from_path(path) is None:
            text = outside.page_of(target)
            add(path, text)
            if target.endswith(".md") or (outside.ROOT / target).is_dir():
                waiting |= outside.links_of(text, path)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Make links to files of the repository links within the site."""
    return outside.rewrite(markdown, page.file.src_uri)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Put drawings into the page, so that they take its colours; link the pages that docstrings
    name.
    """
    folder = (outside.ROOT / outside.home_of(page.file.src_uri)).parent

    def drawing(match: re.Match[str]) -> str:
        file = folder / f"{match[2]}.svg"
        if not file.is_file():
            return match[0]
        svg = STYLE.sub("", file.read_text(encoding="utf-8"))
        return svg.replace("<svg", f'<svg role="img" aria-label="{match[1]}"', 1)

    if page.file.src_uri.startswith("reference/"):
        up = "../" * page.file.src_uri.count("/")
        html = NAMED_PAGE.sub(rf'<a href="{up}\1.html">\1</a>', html)
    return PICTURE.sub(drawing, html)
