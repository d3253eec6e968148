"""What a command prints: its result on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any


def finish(result: dict[str, Any], text: str, as_json: bool, *, is_data: bool = False) -> None:
    """Print a command's result: text for people or, as the last line of stdout, one JSON object.

    `--quiet` suppresses the text unless it `is_data`: what the command was run for, such as a new
    token.
    """
    if as_json:
        print(json.dumps(result, default=str), flush=True)
    elif is_data or not is_quiet():
        print(text, flush=True)


def note(line: str) -> None:
    """Print a line about progress, or a warning, on stderr unless `--quiet` was given."""
    if not is_quiet():
        print(line, file=sys.stderr, flush=True)


def is_quiet() -> bool:
    """Return whether `--quiet` was given: warnings are not logged."""
    return not logging.getLogger("sanderling").isEnabledFor(logging.WARNING)
