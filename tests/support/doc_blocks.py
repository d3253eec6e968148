"""The blocks of code on the documents' pages, and the command lines in them."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

BLOCK = re.compile(r"^( *)(`{3,})(\w*)([^\n]*)\n(.*?)^\1\2$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]*)"')


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: str
    """Its page's path in the repository."""

    line: int
    """The line of its first line of code, from 1."""

    language: str
    title: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Return the paths of all documents of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(page for page in listed.stdout.split() if (ROOT / page).is_file())


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page, in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        title = TITLE.search(match[4])
        indented = len(match[1])
        code = "".join(line[indented:] for line in match[5].splitlines(keepends=True))
        line = text.count("\n", 0, match.start(5)) + 1
        found.append(Block(page, line, match[3], title[1] if title else "", code))
    return found


def indented_blocks_of(page: str) -> list[Block]:
    """Return the lines of a page that are indented by four spaces, fences apart, one a block."""
    text = (ROOT / page).read_text(encoding="utf-8")
    plain = BLOCK.sub(lambda match: "\n" * match[0].count("\n"), text)
    return [
        Block(page, number, "", "", line[4:] + "\n")
        for number, line in enumerate(plain.splitlines(), 1)
        if line.startswith("    ")
    ]


def commands_in(block: Block) -> Iterator[list[str]]:
    """Return the words of each call of `sanderling` that a block shows, without the program's name
    and what a shell would take for itself.
    """
    for line in block.code.replace("\\\n", " ").splitlines():
        without_comment = re.sub(r"(^|\s)#.*", "", line)
        for part in re.split(r"&&|\|\||;|\|(?=\s)", without_comment):
            start = re.match(r"\s*(?:\$ |[\d*]+ [\d*]+ \* \* \*)?\s*(?:\S*/)?sanderling (.*)", part)
            if start is None:
                continue
            words = shlex.split(re.sub(r"\s[<>].*", "", start[1]))
            yield [word for word in words if word != "&"]
