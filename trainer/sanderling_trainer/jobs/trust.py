"""What a retraining believes of its log: decisions that an engine can have made, and of each
install no more than nine in ten installs teach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.popularity import distinct_likes, like_factors, likes_of
from sanderling_trainer.evaluation import ope
from sanderling_trainer.event_log.examples import Examples
from sanderling_trainer.policy.checkpoint import CheckpointMetadata
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.training.targets import with_bounded_influence

Floats = NDArray[np.float64]

MAX_ANOMALIES = 20
ANOMALOUS_CUT = 0.5
"""An install that keeps less of what it sent than this share stands in the table of anomalies."""


def active_policy(metadata: CheckpointMetadata, config: Config) -> ope.ActivePolicy:
    """Return the policy whose decisions a log has, and how those before it explored."""
    earlier = [
        _policy(int(release), exploration) for release, exploration in metadata.explorations.items()
    ]
    return _policy(metadata.release, config.exploration())._replace(earlier=tuple(earlier))


def _policy(release: int, exploration: Mapping[str, Any]) -> ope.ActivePolicy:
    names = ("pool", "epsilon", "scheme", "guarded", "newcomers")
    return ope.ActivePolicy(release, **{name: exploration[name] for name in names})


def believed(examples: Examples, metadata: CheckpointMetadata, config: Config) -> Examples:
    """Return the examples without implausible decisions, each install's influence bounded.

    `dropped` of the result counts the implausible decisions too.
    """
    decisions, implausible = ope.plausible(examples.decisions, active_policy(metadata, config))
    histories = with_bounded_influence(
        examples.histories, config.visit_hours, config.horizon_days, metadata.repeats
    )
    return replace(
        examples,
        histories=histories,
        decisions=decisions.bound_influence(),
        dropped=examples.dropped + type(examples.dropped)(implausible),
    )


def anomalies(
    examples: Examples, ids: Sequence[str], events_of: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return a row for each install that is cut to less than half, at most 20, worst first.

    examples: what `believed` returned.
    ids: of the items.
    events_of: how many events each install sent.
    """
    likes = distinct_likes(*likes_of(examples.histories))
    like_factor = like_factors(likes)
    decisions = examples.decisions
    sent_weights = replace(decisions, influence=np.ones(len(decisions))).weights()
    n = len(examples.installs)

    shares = {
        "likes": _shares(likes[3], np.ones(len(like_factor)), like_factor, n),
        "decisions": _shares(decisions.group, sent_weights, decisions.influence, n),
    }
    cut = np.min([kept for _, _, kept in shares.values()], axis=0)
    sent = np.max([before for before, _, _ in shares.values()], axis=0)
    anomalous = np.flatnonzero(cut < ANOMALOUS_CUT)
    worst = anomalous[np.argsort(-(sent * (1.0 - cut))[anomalous], kind="stable")]
    total = sum(events_of.values())
    return [
        {
            "install": examples.installs[number],
            "events": events_of[examples.installs[number]],
            "share_of_events": events_of[examples.installs[number]] / max(total, 1),
            **{
                f"share_of_{name}": {"sent": float(before[number]), "counted": float(after[number])}
                for name, (before, after, _) in shares.items()
            },
            **_top_item(likes[1][likes[3] == number], ids),
        }
        for number in worst[:MAX_ANOMALIES].tolist()
    ]


def _shares(
    install: NDArray[np.int64], amount: Floats, factor: Floats, n: int
) -> tuple[Floats, Floats, Floats]:
    """Return each install's share [n] of what was sent and of what counts, and what it keeps."""
    sent = np.bincount(install, amount, minlength=n)
    counted = np.bincount(install, amount * factor, minlength=n)
    kept = np.divide(counted, sent, out=np.ones(n), where=sent > 0.0)
    return sent / max(sent.sum(), 1.0), counted / max(counted.sum(), 1.0), kept


def _top_item(rows: NDArray[np.int64], ids: Sequence[str]) -> dict[str, Any]:
    if not len(rows):
        return {"top_item": None, "top_item_share": None}
    counts = np.bincount(rows)
    return {
        "top_item": ids[int(counts.argmax())],
        "top_item_share": float(counts.max() / len(rows)),
    }
