"""What `train` prints: the verdict, what was tried and chosen, how the policy ranks, the cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sanderling_quantize.readability import Readability

MISSING = "-"


def trained_text(metrics: Mapping[str, Any]) -> str:
    """Return the text of a training's metrics: shortfalls first."""
    ranking = "\n".join(_ranking(metrics.get("ranking", [])))
    texts = "\n".join(_texts(metrics.get("texts", {})))
    blocks = [choice_text(metrics["choice"]), texts, ranking, _cost(metrics)]
    return "\n\n".join(filter(None, blocks))


def choice_text(choice: Mapping[str, Any]) -> str:
    """Return the text of a choice as `Choice.as_dict` gives it: verdict, settings, table."""
    return "\n".join([_verdict(choice), _log_line(choice), *_tried(choice["tried"])])


def _verdict(choice: Mapping[str, Any]) -> str:
    compared = [row for row in choice["tried"] if row["stage"] == "compared"]
    if not compared:
        return "settings not compared: no inner window of the log has anybody to measure by"
    policy = next(row for row in compared if row["model"] == "Sanderling")
    others = [row for row in compared if row is not policy]
    if not others:
        return f"Sanderling: nDCG@10 {policy['mean']:.4f} on inner windows"
    best = max(others, key=lambda row: row["mean"])
    figures = f"{policy['mean']:.4f} against {best['mean']:.4f} of {best['model']}"
    if choice["loses"]:
        return f"THE POLICY LOSES on inner windows: nDCG@10 {figures}"
    return f"the policy wins on inner windows: nDCG@10 {figures}"


def _log_line(choice: Mapping[str, Any]) -> str:
    log, settings = choice["log"], choice["settings"]
    if settings["visit_hours"] > 0:
        points = (
            f"visits that end at a gap of {settings['visit_hours']:g} h,"
            f" with the likes of {settings['horizon_days']:g} days"
        )
    else:
        points = "single events"
    repeats = "users come back to items" if choice["repeats"] else "items are not repeated"
    order = ", times order each user's own events alone" if log["ordinal"] else ""
    epochs = settings["epochs"] if settings["stop_after"] is None else settings["stop_after"]
    return (
        f"chosen: {points}; {repeats} ({log['repeated']:.0%} of events){order};"
        f" {epochs} epochs, dropout {settings['dropout']:g},"
        f" linear start of ridge {settings['ridge']:g}, memory {settings['memory']:g} and weight"
        f" {settings['gain']:g}"
    )


def _tried(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    windows = list(dict.fromkeys(name for row in rows for name in row["windows"]))
    lines = [
        f"{'nDCG@10 on inner windows':<46}{''.join(f'{name:>22}' for name in windows)}    mean"
    ]
    for row in rows:
        cells = "".join(_cell(row["windows"].get(name)) for name in windows)
        lines.append(f"{_label(row):<46}{cells}  {row['mean']:.4f}")
    return lines


def _label(row: Mapping[str, Any]) -> str:
    if row["model"] == "Sanderling" or row["stage"] == "screened":
        return row["model"] + (" (screened)" if row["stage"] == "screened" else "")
    settings = ", ".join(f"{name[:6]} {value:g}" for name, value in row["settings"].items())
    return f"{row['model']} {settings}"[:45]


def _cell(reached: Mapping[str, Any] | None) -> str:
    if reached is None:
        return f"{MISSING:>22}"
    return f"{reached['ndcg@10']:.4f} ({reached['users']} users)".rjust(22)


def _ranking(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for table in tables:
        for model in table["models"]:
            ndcg = model["ndcg@10"]
            lines.append(
                f"{table['protocol']:<24}{model['name']:<26}nDCG@10 {ndcg['value']:.4f}"
                f" [{ndcg['low']:.4f}, {ndcg['high']:.4f}]  ({table['users']} users)"
            )
    return lines and ["on the part held out:", *lines]


def _texts(found: Mapping[str, Any]) -> list[str]:
    """Return a line on how well the language model reads the texts of items and of contexts."""
    return [
        f"texts of {name} by the language model: {Readability(**shares).summary()}"
        for name, shares in found.items()
        if shares["texts"]
    ]


def _cost(metrics: Mapping[str, Any]) -> str:
    seconds = metrics["seconds"]
    fit = seconds.get("fit", seconds.get("fit for the report", 0.0))
    parts = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    return (
        f"cost: {parts}; choosing took {seconds['choose'] / max(fit, 1e-9):.1f} times one fit;"
        f" what ships has seen {metrics['log']['shipped_on']}"
    )
