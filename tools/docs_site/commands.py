"""A page of each command of `sanderling`, from the command line itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from sanderling.cli.app import make_app

FOLDER = "reference/cli"


def pages() -> dict[str, str]:
    """Return each page's path and text, the overview first."""
    root = get_command(make_app())
    commands = dict(_leaves(root, ()))
    overview = [
        "# Commands",
        "",
        _text(root),
        "",
        "| command | |",
        "|---|---|",
        *(
            f"| [`{name}`]({_file(name)}) | {_first(command)} |"
            for name, command in commands.items()
        ),
        "",
        "## Options before a command's name",
        "",
        *_parameters(root),
        "",
    ]
    result = {f"{FOLDER}/index.md": "\n".join(overview)}
    for name, command in commands.items():
        result[f"{FOLDER}/{_file(name)}"] = _page(name, command)
    return result


def _leaves(group: Any, above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _leaves(command, (*above, name))
        else:
            yield " ".join([*above, name]), command


def _file(name: str) -> str:
    return name.replace(" ", "-") + ".md"


def _page(name: str, command: Any) -> str:
    arguments = [p.name.upper() for p in command.params if p.param_type_name == "argument"]
    return "\n".join(
        [
            f"# sanderling {name}",
            "",
            _text(command),
            "",
            "```text",
            " ".join(["sanderling", name, *arguments, "[OPTIONS]"]),
            "```",
            "",
            *_parameters(command),
            "",
        ]
    )


def _text(command: Any) -> str:
    """Return a command's help, whose example is a block of code."""
    lines = []
    for line in inspect.cleandoc(command.help or "").replace("\b\n", "").splitlines():
        if line.startswith("Example: "):
            lines += ["Example:", "", "```text", line.removeprefix("Example: "), "```"]
        else:
            lines.append(_escape(line))
    return "\n".join(lines)


def _first(command: Any) -> str:
    return _cell(_text(command).split("\n\n")[0])


def _parameters(command: Any) -> list[str]:
    """Return a table of a command's arguments and options."""
    rows = ["| option | |", "|---|---|"]
    context = _context(command)
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None and parameter.name not in HIDDEN:
            name, text = record
            rows.append(f"| {_code(name)} | {_cell(_escape(text))} |")
    return rows


HIDDEN = ("help", "install_completion", "show_completion")


def _context(command: Any) -> Any:
    return command.context_class(command, resilient_parsing=True)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _code(text: str) -> str:
    """Return code for a cell of a table, in which a bar would end the cell."""
    return f"<code>{_escape(text).replace('|', '&#124;')}</code>"


def _escape(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")
