"""The code on pages of the documentation runs, or parses, as it stands there."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import tomllib
from typing import Any

import pytest
import yaml
from typer.main import get_command

from sanderling.cli import app
from sanderling.cli.tiny import BUNDLE
from tests.support.commands import declared
from tests.support.doc_blocks import Block, blocks_of, commands_in, indented_blocks_of, pages

BLOCKS = [block for page in pages() for block in blocks_of(page)]

TRANSLATED = {"README.zh.md": "README.md", "docs/zh/tutorial.md": "docs/tutorial.md"}
"""Pages in Chinese, and those that they translate."""

RUN_ELSEWHERE = {
    ("docs/tutorial.md", "sh"): "tests/test_tutorial.py",
    ("docs/tutorial.md", "python"): "tests/test_tutorial.py",
    ("docs/SERVICE.md", "sh"): "tests/engine/test_service_docs.py",
    ("docs/SERVICE.md", "javascript"): "tests/engine/test_service_docs.py",
    ("docs/PORTING.md", "sh"): "tests/jvm/test_jvm.py, where Kotlin is installed",
}
"""Pages and languages whose blocks other tests run."""

PARSED_ONLY = {
    ("README.md", "from sanderling_quantize"): "the lab's minutes; the tutorial does the same",
    ("docs/LANGUAGES.md", "pip install"): "writes a model of 487 MB",
}
"""Pages and first words of blocks that no test runs, with the reason."""

BESIDE = {"README.md": {"token.txt": "a-token-of-the-collector"}}
"""Files that a page's code finds beside the bundle."""

NAMES: dict[str, dict[str, Any]] = {"README.md": {"seen": ["emma"]}}
"""What a page's code takes for given."""


def is_parsed_only(block: Block) -> bool:
    return any(block.page == page and block.code.startswith(start) for page, start in PARSED_ONLY)


def runs_here(block: Block) -> bool:
    return (
        block.language == "python"
        and block.page not in TRANSLATED
        and (block.page, "python") not in RUN_ELSEWHERE
        and not is_parsed_only(block)
    )


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if runs_here(block)}))
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """All blocks of a page, in their order and one namespace, beside the tiny bundle."""
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    for name, content in BESIDE.get(page, {}).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = dict(NAMES.get(page, {}))
    try:
        for block in blocks_of(page):
            if runs_here(block):
                # Faults are shown at their line of the page.
                code = "\n" * (block.line - 1) + block.code
                exec(compile(code, page, "exec"), names)
    finally:
        if "engine" in names:
            names["engine"].close()


def parse_shell(code: str) -> None:
    """Raise `CalledProcessError` where bash cannot parse it."""
    subprocess.run(["bash", "-n"], input=code, text=True, check=True, capture_output=True)


PARSERS = {
    "python": ast.parse,
    "sh": parse_shell,
    "bash": parse_shell,
    "toml": tomllib.loads,
    "json": json.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
}
SHOWN_ONLY = {"", "text", "js", "javascript", "html", "kotlin"}
"""Pictures, output and commands of other machines; languages that are checked below or nowhere."""


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_parses(block):
    """Each block with a language that can be parsed here is correct in that language."""
    assert block.language in {*PARSERS, *SHOWN_ONLY}, f"{block}: found {block.language}"
    if block.language in PARSERS:
        PARSERS[block.language](block.code)


def test_every_block_is_run_or_parsed_or_listed():
    """Blocks of python and of shells run, here or elsewhere; the rest is in a table with a reason;
    the tables list nothing that does not exist.
    """
    left = [
        block
        for block in BLOCKS
        if block.language in ("python", "sh", "bash")
        and block.page not in TRANSLATED
        and (block.page, block.language) not in RUN_ELSEWHERE
        and not is_parsed_only(block)
        and not runs_here(block)
    ]
    assert not left
    assert set(RUN_ELSEWHERE) <= {(block.page, block.language) for block in BLOCKS}
    for page, start in PARSED_ONLY:
        assert any(block.page == page and block.code.startswith(start) for block in BLOCKS)


@pytest.mark.parametrize(("page", "original"), TRANSLATED.items())
def test_a_translation_has_the_same_code(page, original):
    """All blocks of a page in Chinese are those of the page in English, in their order."""
    assert [each.code for each in blocks_of(page)] == [each.code for each in blocks_of(original)]
    assert [each.title for each in blocks_of(page)] == [each.title for each in blocks_of(original)]


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node 20")
@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language in ("js", "javascript")], ids=str
)
def test_a_block_of_javascript_parses(block, tmp_path):
    """Node reads each block as a module."""
    file = tmp_path / "block.mjs"
    file.write_text(block.code, encoding="utf-8")
    subprocess.run(["node", "--check", str(file)], check=True, timeout=60)


COMMANDS = [
    (block, words)
    for page in pages()
    for block in [*blocks_of(page), *indented_blocks_of(page)]
    for words in commands_in(block)
]


def check_command(words: list[str]) -> None:
    """Raise a usage error of Typer unless the command line has only commands and options that
    exist, with values of their types where it does not leave out some by an ellipsis.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "entry_points", declared)
        command = get_command(app.make_app())
    context = command.make_context("sanderling", [], resilient_parsing=True)
    rest = list(words)
    while hasattr(command, "commands"):
        while rest and rest[0].startswith("-"):
            rest.pop(0)
        name = rest.pop(0)
        assert name in command.commands, f"expected a command, found {name}"
        command = command.commands[name]
        context = command.context_class(command, parent=context, info_name=name)
    context.resilient_parsing = bool({"…", "--help", "--print-config"} & set(words))
    command.parse_args(context, [word for word in rest if word not in ("…", "--help")])


@pytest.mark.parametrize(
    ("block", "words"), COMMANDS, ids=[f"{block}-{words[0]}" for block, words in COMMANDS]
)
def test_a_command_line_of_a_page_is_one(block: Block, words: list[str]):
    """Each call of `sanderling` in any block has a command, options and values that exist."""
    try:
        check_command(words)
    except Exception as error:  # Typer's errors have no common public base
        raise AssertionError(f"{block}: sanderling {' '.join(words)}: {error}") from error


def test_a_wrong_command_line_is_noticed():
    """The check above fails for a command, an option and an argument that do not exist."""
    for line in ("fly", "train --wings 2", "quantize a b --out c", "recommend --k ten"):
        with pytest.raises(Exception, match=r"."):
            check_command(line.split())


def test_pages_show_commands():
    """The pattern that finds command lines does find them."""
    found = {words[0] for _, words in COMMANDS}
    assert {"train", "quantize", "retrain", "collect", "release", "compact", "doctor"} <= found
