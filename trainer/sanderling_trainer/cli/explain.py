"""`sanderling explain`: why a logged decision shows what it shows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanderling.cli.options import Json
from sanderling.cli.output import finish

if TYPE_CHECKING:
    from sanderling_trainer.jobs.explain_decision import ExplainedDecision, ExplainedSlot

TITLE = 48
"""Characters of a printed title."""


def explain(
    events: Annotated[str, typer.Option(help="Folder or URL of the collector's store.")],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle that made the decision.")],
    decision: Annotated[
        str | None,
        typer.Option(
            help="The decision's id: `slate.decision`.", show_default="the bundle's latest"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay a logged decision, and say of each slot why it shows its item: the slate with
    probabilities, what greedy would have shown, and whether the replay equals the log.

    Example: sanderling explain --events events/ --bundle bundle/
    """
    from sanderling_trainer.jobs.explain_decision import explain_decision

    done = explain_decision(events, bundle, decision)
    finish(done.to_dict(), _text(done), as_json, is_data=True)


def _text(done: ExplainedDecision) -> str:
    event = done.decision
    time = datetime.fromtimestamp(done.time / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    replay = "equals the log bit for bit" if done.is_identical else "does not equal the log"
    lines = [
        f"decision {event.id} of release {event.release}, {time}",
        f"user {event.user} with {event.state_events} events, on install {event.install}",
        f"{event.scheme}, epsilon {event.epsilon:g}, pool {event.pool} of {event.eligible} items",
        f"the replay {replay}",
        *done.notes,
        "",
        f"slot  rank probability  {'':<9}{'item':<{TITLE}}  without exploration",
    ]
    for slot in done.slots:
        lines += _slot_lines(slot)
    return "\n".join(lines)


def _slot_lines(slot: ExplainedSlot) -> list[str]:
    shown = slot.shown
    how = next((name for name in ("pinned", "newcomer", "explored") if getattr(shown, name)), "")
    greedy = slot.reasons.greedy if slot.reasons else None
    is_same = greedy is not None and greedy.id == shown.id
    other = "the same" if is_same else _cut(greedy.title) if greedy else "unknown"
    row = (
        f"{shown.slot + 1:>4} {shown.rank + 1:>5} {shown.propensity:>11.5f}  {how:<9}"
        f"{_cut(shown.title or shown.id):<{TITLE}}  {other}"
    )
    return [row, f"{'':>6}{slot.reasons}"] if slot.reasons else [row]


def _cut(title: str) -> str:
    line = " ".join(title.split())
    return line if len(line) <= TITLE else f"{line[: TITLE - 1]}…"
