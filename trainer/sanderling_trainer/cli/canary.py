"""`sanderling release canary` and `again`: whether a canary is promoted, and what replaces it.

Heavy libraries are imported when a command runs, not when it is listed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanderling.cli.options import Json
from sanderling.cli.output import finish
from sanderling.runtime.output_paths import check_creatable

if TYPE_CHECKING:
    from sanderling_trainer.evaluation.intervals import Interval

STATUS = {"promote": 0, "roll back": 3, "continue": 4}
"""Exit status of what is to do."""

NEXT = {
    "promote": "promote: it is not worse; give it to all",
    "roll back": "roll back: it is worse; withdraw it, and release the active one again",
    "continue": "continue: not decided yet; look again tomorrow",
}


def canary(
    events: Annotated[str, typer.Option(help="Folder or URL of the collector's store.")],
    checkpoint: Annotated[Path, typer.Option(help="Folder of the canary's checkpoint.")],
    percent: Annotated[
        int, typer.Option(min=1, max=99, help="Percentage of the installs that may have it.")
    ],
    as_json: Json = False,
) -> None:
    """Compare a canary with the active release by what devices have reported; look once a day.

    It changes nothing. The exit status is 0 to promote, 3 to roll back, 4 to go on, and 1 for an
    error.

    Example: sanderling release canary --events events/ --checkpoint canary/ --percent 5
    """
    from sanderling_trainer.jobs.canary import compare_canary

    report = compare_canary(events, checkpoint, percent)
    decision = report.decision
    rates = zip(
        (f"release {report.release}", f"release {report.active}"),
        (decision.canary, decision.active),
        report.installs,
        strict=True,
    )
    lines = [f"{NEXT[decision.action]} (day {report.look})"]
    lines += [
        f"{name:<12}{rate.low:.4f} to {rate.high:.4f} clicks a slot, {installs:,} installs"
        for name, rate, installs in rates
    ]
    result = {
        "action": decision.action,
        "release": report.release,
        "active": report.active,
        "look": report.look,
        "canary": {"installs": report.installs[0], **_interval(decision.canary)},
        "serving": {"installs": report.installs[1], **_interval(decision.active)},
    }
    finish(result, "\n".join(lines), as_json)
    if STATUS[decision.action]:
        raise typer.Exit(STATUS[decision.action])


def again(
    checkpoint: Annotated[Path, typer.Option(help="Folder of the active checkpoint.")],
    above: Annotated[Path, typer.Option(help="Folder of the canary's checkpoint.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint to write.")],
    as_json: Json = False,
) -> None:
    """Write the active checkpoint again with a number above a canary's that was rolled back.

    Devices that have the canary take no lower number. Build and publish its bundle as any other,
    and make it the active checkpoint.

    Example: sanderling release again --checkpoint active/ --above canary/ --out checkpoints/again/
    """
    check_creatable(out)

    from sanderling_trainer.jobs.canary import renumbered

    number = renumbered(checkpoint, above, out)
    text = f"the policy of {checkpoint} as release {number} -> {out}"
    finish({"release": number, "out": str(out)}, text, as_json)


def _interval(rate: Interval) -> dict[str, float]:
    return {"low": rate.low, "high": rate.high}
