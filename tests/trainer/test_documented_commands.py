"""Commands and options that documents, messages and help texts name exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from sanderling.cli import app
from tests.support.commands import PARTS, declared

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]

HISTORY = {"CHANGELOG.md", "LOG.md"}
"""Documents that may name what was removed."""

IN_TEXT = re.compile(r"`(sanderling [^`]+)`|Example: (sanderling [^\n]+)")
IN_DOCUMENT = re.compile(
    r"`(sanderling [^`]+)`|^(?:\$ )?(sanderling [a-z](?:\\\n|[^\n])*)", re.MULTILINE
)


@pytest.fixture(scope="module")
def command() -> Any:
    """The command line with every command of the three distributions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "entry_points", declared)
        return typer.main.get_command(app.make_app())


def options_of(command: Any) -> set[str]:
    names = (name for one in command.params for name in (*one.opts, *one.secondary_opts))
    return {*names, "--help"}


def all_options(command: Any) -> set[str]:
    """Return the options of a command and of all below it."""
    below = (all_options(each) for each in getattr(command, "commands", {}).values())
    return options_of(command).union(*below)


def unknown(command: Any, text: str) -> str | None:
    """Return the first word of a command line that names no command or option, None if none."""
    line = re.split(r"[|;>&\n…]", text.replace("\\\n", " "))[0]
    for word in shlex.split(line)[1:]:
        if word.startswith("-"):
            if word.split("=")[0] not in options_of(command):
                return word
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return word
            command = command.commands[word]
    return None


def texts_of(path: Path) -> Iterator[str]:
    """Yield the strings of a module: messages, help texts and docstrings."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def documents() -> list[Path]:
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    found += [path for part in (*PARTS, "bench") for path in (ROOT / part).glob("*.md")]
    return [path for path in found if path.name not in HISTORY]


def lines_in(pattern: re.Pattern[str], text: str) -> list[str]:
    return [match[1] or match[2] for match in pattern.finditer(text)]


def test_documents_name_existing_commands(command):
    """Each command line in a document, in the text or in a block, has known words only."""
    n = 0
    for path in documents():
        for line in lines_in(IN_DOCUMENT, path.read_text(encoding="utf-8")):
            n += 1
            word = unknown(command, line)
            assert word is None, f"{path.name}: found {word} in {line!r}, which does not exist"
    assert n > 30


def test_documents_name_existing_options(command):
    """Each option that stands alone in a document is one of some command or benchmark."""
    bench = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bench").rglob("*.py"))
    known = all_options(command) | set(re.findall(r"--[a-z][a-z-]+", bench))
    for path in documents():
        for option in re.findall(r"`(--[a-z][a-z-]*)", path.read_text(encoding="utf-8")):
            assert option in known, f"{path.name}: found {option}, which does not exist"


def test_messages_and_help_name_existing_commands(command):
    """Each command line in a message, a help text or a docstring has known words only."""
    n = 0
    for part in PARTS:
        for path in sorted((ROOT / part).rglob("*.py")):
            for line in (line for text in texts_of(path) for line in lines_in(IN_TEXT, text)):
                n += 1
                word = unknown(command, line)
                assert word is None, f"{path}: found {word} in {line!r}, which does not exist"
    assert n > 30


def test_a_stale_command_is_found(command):
    """A renamed command, a subcommand and an option that are gone are each found."""
    assert unknown(command, "sanderling renew") == "renew"
    assert unknown(command, "sanderling release publishes bundle/") == "publishes"
    assert unknown(command, "sanderling train --seeds 3") == "--seeds"
    assert unknown(command, "sanderling quantize a/ --out b/ && sanderling x") is None
