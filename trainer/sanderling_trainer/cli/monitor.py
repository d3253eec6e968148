"""`sanderling monitor`: what the fleet did on its last whole day, for people and for Prometheus.

Heavy libraries are imported when a command runs, not when it is listed.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanderling.cli.options import Json
from sanderling.cli.output import finish
from sanderling.runtime.clock import SystemClock

if TYPE_CHECKING:
    from sanderling_trainer.jobs.monitor import FleetReport

DAY = "day_timestamp_seconds"
ALARMS = "changed_timestamp_seconds"


def monitor(
    events: Annotated[str, typer.Option(help="Folder or URL of the collector's store.")],
    as_json: Json = False,
) -> None:
    """Say what the devices' events tell of the fleet's last whole day (UTC), and push it to the
    Pushgateway in SANDERLING_PUSHGATEWAY: slates by release, click rate, exploration, losses.

    Run it once a day, after the compaction.

    Example: sanderling monitor --events events/
    """
    from sanderling_trainer.jobs.figures import pushed_figures
    from sanderling_trainer.jobs.monitor import monitor as run

    clock = SystemClock()
    fleet: dict[str, Any] = {}
    with pushed_figures("monitor", clock, fleet):
        report = run(events, clock)
        fleet.update(report.figures())
    shown = {name: _json(value) for name, value in fleet.items()}
    finish({"day": _date(report), **shown}, "\n".join(_lines(report, shown)), as_json)


def _lines(report: FleetReport, shown: dict[str, Any]) -> list[str]:
    lines = [f"{_date(report)} (UTC)"]
    width = max(len(name) for name in shown if name not in (DAY, ALARMS)) + 1
    for name, value in shown.items():
        if name == DAY:
            continue
        labelled = value if isinstance(value, dict) else {"": value}
        write = _alarm if name == ALARMS else _number
        text = ", ".join(f"{label} {write(each)}".strip() for label, each in labelled.items())
        title = "last alarm" if name == ALARMS else name.replace("_", " ")
        lines.append(f"{title:<{width}}{text}")
    return lines


def _alarm(seconds: float) -> str:
    """Return the day of a figure's last alarm."""
    return _day(seconds) if seconds else "none"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:,.4g}" if value % 1 else f"{value:,.0f}"


def _date(report: FleetReport) -> str:
    start = report.figures()[DAY]
    assert isinstance(start, float)
    return _day(start)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _json(value: Any) -> Any:
    """Return a value as JSON may hold it: null for a share of nothing."""
    if isinstance(value, dict):
        return {label: _json(each) for label, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
