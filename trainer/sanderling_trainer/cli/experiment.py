"""`sanderling experiment`: the arms of an experiment, compared by what devices have reported.

Heavy libraries are imported when the command runs, not when it is listed.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanderling.bundle.manifest import Exploration
from sanderling.cli.options import Json
from sanderling.cli.output import finish
from sanderling_quantize.manifest_files import read_experiment

if TYPE_CHECKING:
    from sanderling_trainer.jobs.compare_arms import ArmReport, ExperimentReport


def experiment(
    events: Annotated[str, typer.Option(help="Folder or URL of the collector's store.")],
    experiment: Annotated[Path, typer.Option(help="The TOML file that `quantize` was given.")],
    control: Annotated[
        str | None,
        typer.Option(help="Arm to compare with; by default the rest, or the first without one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the arms of an experiment; look as often as once a day, and stop when you like.

    Example: sanderling experiment --events events/ --experiment experiment.toml
    """
    arms = read_experiment(experiment, Exploration())

    from sanderling_trainer.jobs.compare_arms import compare_arms

    report = compare_arms(events, arms, control)
    finish(asdict(report) | {"is_fair": report.is_fair}, _text(report), as_json)


def _text(report: ExperimentReport) -> str:
    lines = [f"{report.name}, day {report.look}"]
    if not report.is_fair:
        lines.append(
            "The numbers of installs do not fit the shares"
            f" (p = {report.ratio_p:.1g}): something loses installs of an arm; do not compare"
        )
    if report.misassigned:
        lines.append(
            f"{report.misassigned:,} decisions are of another arm than their install's, and left"
            " out: they were made with another file"
        )
    lines.append(f"{'arm':<16}{'installs':>10}{'expected':>10}  clicks a slot, change")
    return "\n".join([*lines, *map(_line, report.arms)])


def _line(arm: ArmReport) -> str:
    rate = f"{arm.rate.low:.4f} to {arm.rate.high:.4f}"
    change = "" if arm.change is None else f", {arm.change[0]:+.1%} to {arm.change[1]:+.1%}"
    return f"{arm.name:<16}{arm.installs:>10,}{arm.expected:>10,.0f}  {rate}{change}: {arm.verdict}"
