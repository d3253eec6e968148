"""The command `sanderling`: one program for whatever distributions are installed, each adding its
commands.
"""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Run the command line; where the extra `cli` is missing, only `doctor`, or say what to
    install."""
    if importlib.util.find_spec("typer") is None:
        if sys.argv[1:2] == ["doctor"]:
            sys.exit(_doctor(as_json="--json" in sys.argv[2:]))
        sys.exit(
            "sanderling: the command line needs the extra `cli`: pip install 'sanderling[cli]'"
        )

    from sanderling.cli.app import run

    run()


def _doctor(as_json: bool) -> int:
    from sanderling.cli import doctor
    from sanderling.cli.output import finish

    report = doctor.examine()
    finish(report, doctor.as_text(report), as_json)
    return int(doctor.is_wrong(report))
