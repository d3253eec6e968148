"""Renders the report as one HTML page without external references, for screen, phone and print."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from sanderling_trainer.report import charts, formats
from sanderling_trainer.report.demo_summary import replay_lines
from sanderling_trainer.report.findings import findings, lost_share

SUMMARY_PARTS = (
    "data", "nights", "replay", "ranking", "quantize", "latency", "bundle", "events", "learning",
    "updates", "seconds", "machine",
)  # fmt: skip


LATEST = 12
"""Releases that tables show, counted from the latest one."""


def write_page(content: Mapping[str, Any], path: Path) -> None:
    """Write what `collect.collect` returned as a page, in a folder that is made if need be;
    a part that is missing is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(content), encoding="utf-8")


def render(content: Mapping[str, Any]) -> str:
    """Return the page's HTML."""
    environment = Environment(
        loader=PackageLoader("sanderling_trainer.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        day=formats.day,
        number=formats.number,
        percent=_unbroken(formats.percent),
        plural=formats.plural,
        signed=formats.signed,
        signed_percent=_unbroken(formats.signed_percent),
        size=_unbroken(formats.size),
        whole=formats.whole,
        with_code=_with_code,
    )
    environment.globals.update(charts=charts, lost_share=lost_share, is_number=formats.is_number)
    source, *_ = PackageLoader("sanderling_trainer.report").get_source(environment, "style.css")
    summary = content.get("summary") or {}
    return environment.get_template("page.html.j2").render(
        style=Markup(source),
        found=findings(content),
        events=_latest(content.get("events")),
        changes=content.get("changes"),
        experiments=content.get("experiments") or [],
        checkpoints=content.get("checkpoints") or [],
        demo={name: summary.get(name) or {} for name in SUMMARY_PARTS},
        replay_line=" ".join(replay_lines(summary)),
    )


def _latest(events: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the figures of a store with the latest releases alone, and how many others it has."""
    if events is None:
        return None
    shown = dict(events)
    shown["releases"] = events["releases"][-LATEST:]
    shown["hidden_releases"] = len(events["releases"]) - len(shown["releases"])
    for name in ("newcomers", "coverage"):
        if events[name]:
            shown[name] = {**events[name], "releases": events[name]["releases"][-LATEST:]}
    return shown


def _unbroken(write: Callable[..., str]) -> Callable[..., str]:
    """Return a format whose unit stays on the line of its number."""
    return lambda *given: write(*given).replace(" ", "\u00a0")


def _with_code(text: str) -> Markup:
    """Return a text in which what stands in backticks is code."""
    parts = (escape(part) for part in text.split("`"))
    marked = (Markup("<code>{}</code>").format(part) if i % 2 else part
              for i, part in enumerate(parts))  # fmt: skip
    return Markup("").join(marked)
