"""Files of the repository outside docs/ to which pages link: they become pages of the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = "repository"
"""Of the site, which has the pages of those files."""

LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
FENCE = re.compile(r"^ *(`{3,}).*?^ *\1`*$", re.MULTILINE | re.DOTALL)
LANGUAGES = {
    ".py": "python",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".sh": "sh",
    ".ts": "typescript",
    ".csv": "text",
}


def home_of(page: str) -> str:
    """Return where in the repository a page of the site comes from: `docs/x.md`, or `a/README.md`
    for `repository/a/README.md`.
    """
    if page.startswith(f"{FOLDER}/"):
        return page.removeprefix(f"{FOLDER}/")
    return f"docs/{page}"


def site_path(target: str) -> str:
    """Return the page that shows a file or folder of the repository, below the site's root."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    if (ROOT / target).is_dir():
        readme = posixpath.join(target, "README.md")
        target = readme if (ROOT / readme).is_file() else posixpath.join(target, "index.md")
    return f"{FOLDER}/{target}" if target.endswith(".md") else f"{FOLDER}/{target}.md"


def links_of(text: str, page: str) -> set[str]:
    """Return the files and folders outside docs/, by their paths in the repository, to which the
    text of a page links.
    """
    home = posixpath.dirname(home_of(page))
    found = set()
    for match in LINK.finditer(FENCE.sub("", text)):
        target = _target(match[2], home)
        if target is not None and not target.startswith("docs/"):
            found.add(target)
    return found


def rewrite(text: str, page: str) -> str:
    """Return a page's text with its links to files of the repository made links within the site."""
    home = posixpath.dirname(home_of(page))

    def replaced(match: re.Match[str]) -> str:
        target = _target(match[2], home)
        if target is None:
            return match[0]
        path = posixpath.relpath(site_path(target), posixpath.dirname(page) or ".")
        return f"{match[1]}{path}{match[3] or ''}{match[4]}"

    return LINK.sub(replaced, text)


def _target(link: str, home: str) -> str | None:
    """Return the path in the repository of what a relative link means, or None for other links and
    for what does not exist.
    """
    if "://" in link or link.startswith(("mailto:", "/")):
        return None
    path = posixpath.normpath(posixpath.join(home, link))
    return path if not path.startswith("..") and (ROOT / path).exists() else None


def page_of(target: str) -> str:
    """Return the text of the page that shows a file or folder of the repository."""
    path = ROOT / target
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if file.is_file())
        listed = [
            f"- [{name}]({name})" if Path(name).suffix in LANGUAGES else f"- {name}"
            for name in files
        ]
        return "\n".join([f"# {target}/", "", *listed, ""])
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    return f"# {target}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n````\n"
