"""Writes the page of `sanderling report`, and says what stands in it.

Heavy libraries are imported when the command runs, not when it is listed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sanderling.errors import TableError
from sanderling.runtime.output_paths import check_file


def written_report(
    out: Path,
    events: str | None,
    bundles: Sequence[Path],
    checkpoints: Sequence[Path],
    summary: Path | None,
) -> tuple[dict[str, Any], str]:
    """Write the page; return what `--json` prints, and the text.

    Raises `TableError` where the summary is something else, and what `report.collect` raises.
    """
    check_file(out)
    content = None if summary is None else _summary(summary)

    from sanderling_trainer.report.collect import Sources, collect
    from sanderling_trainer.report.demo_summary import table
    from sanderling_trainer.report.findings import findings
    from sanderling_trainer.report.page import write_page

    parts = collect(Sources(events, checkpoints, bundles, content))
    try:
        found = findings(parts)
        lines = [found["headline"]] if content is None else [table(content)]
        write_page(parts, out)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        if summary is None:
            raise
        fields = f"other fields in it: {type(error).__name__}: {error}"
        raise _not_a_summary(summary, fields) from error

    result = {
        "out": str(out),
        **found,
        "events": parts["events"],
        "experiments": parts["experiments"],
    }
    return result, "\n".join(filter(None, [*lines, found["paragraph"], f"-> {out}"]))


def _summary(path: Path) -> dict[str, Any]:
    """Read the demo's summary; raise `TableError` where the file is something else."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise _not_a_summary(path, "a folder" if path.is_dir() else "no such file") from error
    except ValueError as error:
        raise _not_a_summary(path, f"no JSON: {error}") from error

    if not isinstance(content, dict):
        raise _not_a_summary(path, type(content).__name__)
    return content


def _not_a_summary(path: Path, found: str) -> TableError:
    return TableError(f"{path}: expected the summary.json of `sanderling demo`, found {found}")
