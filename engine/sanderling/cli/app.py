"""Finds the installed commands, sets the logging level, and turns expected errors into one line on
stderr.
"""

from __future__ import annotations

import logging
import os
import sys
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sanderling.errors import SanderlingError

COMMANDS = "sanderling.commands"

# Commands of the trainer's and the quantizer's distributions; an environment of the engine alone
# says where they are.
LAB_COMMANDS = frozenset(
    {
        "collect",
        "compact",
        "erase",
        "evaluate",
        "experiment",
        "explain",
        "export",
        "gate",
        "installs",
        "monitor",
        "quantize",
        "release",
        "report",
        "retrain",
        "tokens",
        "train",
    }
)

# What a wrong file, folder, setting or installation raises. Anything else is a bug, and keeps its
# traceback.
EXPECTED = (SanderlingError, OSError, ValueError, ModuleNotFoundError)

log = logging.getLogger("sanderling")


class LogLevel(StrEnum):
    """The levels of Python's logging that a command can have."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class Commands(TyperGroup):
    """The installed commands; for one of the lab that is missing the error says what to install."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # typer's own types are private
        """Return the name, the command and the arguments that remain; end in wrong usage, exit
        status 2, where there is no such command."""
        name = args[0]
        if name in LAB_COMMANDS and name not in self.commands:
            ctx.fail(f"`{name}` is of the lab: pip install 'sanderling-trainer[cpu,minilm]'")

        return super().resolve_command(ctx, args)


def run() -> None:
    """Run the command line; an expected error ends in one line on stderr and exit status 1, wrong
    usage in 2.
    """
    try:
        make_app()(prog_name="sanderling")
    except EXPECTED as error:
        log.info("where the error came from", exc_info=True)
        sys.exit(f"sanderling: {one_line(error)}")


def make_app() -> typer.Typer:
    """Return the application with every installed command.

    An entry point of the group `sanderling.commands` names a function, or a `typer.Typer` with
    commands of its own. Another distribution's replaces the engine's of the same name.
    """
    app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_root)

    engine_first = sorted(entry_points(group=COMMANDS), key=_is_others)
    by_name = {point.name: point for point in engine_first}
    for name, point in sorted(by_name.items()):
        command = point.load()

        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)

    return app


def _is_others(point: EntryPoint) -> bool:
    return not point.module.startswith("sanderling.")


def one_line(error: BaseException) -> str:
    """Return an error's message as one line; an error of the operating system as `path: reason`."""
    text = str(error) or type(error).__name__

    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {_reason(error)}"

    return " ".join(text.split())


def _reason(error: OSError) -> str:
    if not isinstance(error, FileNotFoundError) or not isinstance(error.filename, str):
        return str(error.strerror)

    if not Path(error.filename).parent.exists():
        return "expected a folder to hold it, found none; make it, or check the path"
    return "expected a file or a folder, found nothing; check the path"


def _root(
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            help="Log more, and show where an error came from; -vv: all.",
        ),
    ] = 0,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Print errors and the result of --json only; no progress."
        ),
    ] = False,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(help="Log from this level on: -v is info, -vv debug, --quiet error."),
    ] = None,
) -> None:
    """An on-device recommender that ranks, explores and adapts inside your app, and sends its
    feedback home.

    Example: sanderling --quiet doctor --json
    """
    if bool(verbose) + quiet + (log_level is not None) > 1:
        raise typer.BadParameter(
            "expected --quiet, --verbose or --log-level, found several; give one"
        )

    by_flags = "ERROR" if quiet else ("WARNING", "INFO", "DEBUG")[min(verbose, 2)]
    level = by_flags if log_level is None else log_level.value.upper()
    # Threads of OpenMP that wait for each other sleep: while they spin they take the cores from
    # whatever else runs, and from each other. Read when torch is imported, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")

    if level == "ERROR":
        logging.captureWarnings(True)
        # Read when tqdm and transformers are imported, which is when a command runs.
        os.environ.update(
            TQDM_DISABLE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TRANSFORMERS_VERBOSITY="error"
        )
