"""The command `sanderling`: one program for whatever distributions are installed, each adding its
commands.
"""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Run the command line; say what to install where the extra `cli` is missing."""
    if importlib.util.find_spec("typer") is None:
        sys.exit(
            "sanderling: the command line needs the extra `cli`: pip install 'sanderling[cli]'"
        )

    from sanderling.cli.app import run

    run()
