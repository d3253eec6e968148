"""The command `sanderling`: one face for whatever distributions are installed, each adding its sub-commands.

Refuses to know what any command does.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import entry_points
from typing import Any

COMMANDS = "sanderling.commands"


def main() -> None:
    """Run the command line; errors made on purpose end in one line on stderr and exit status 1."""
    try:
        import typer
    except ImportError:
        sys.exit("sanderling: the command line needs the extra `cli`: pip install 'sanderling[cli]'")
    app = typer.Typer(
        help="A recommender that thinks on the device.", no_args_is_help=True, pretty_exceptions_enable=False
    )
    app.callback()(_root)
    for point in sorted(entry_points(group=COMMANDS), key=lambda point: point.name):
        app.command(point.name)(point.load())
    from sanderling.errors import SanderlingError

    try:
        app()
    except (SanderlingError, FileNotFoundError, FileExistsError, ModuleNotFoundError) as error:
        sys.exit(f"sanderling: {error}")


def finish(result: dict[str, Any], text: str, as_json: bool) -> None:
    """Print a command's result: one line for people or, as the last line of stdout, one JSON object."""
    print(json.dumps(result, default=str) if as_json else text, flush=True)


def _root() -> None:
    """A recommender that thinks on the device."""
