"""What a release changes for single users: their slates under two releases, with reasons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sanderling.bundle.reader import Bundle
from sanderling.exploration import schemes
from sanderling.ranking import decision as decisions
from sanderling.ranking.bundle_rules import rules_of
from sanderling.ranking.contexts import NO_CONTEXT
from sanderling.ranking.decision import RecommendRequest
from sanderling.ranking.reasons import DecisionInputs, explain_item
from sanderling.ranking.reasons_history import UserHistory
from sanderling.ranking.scorer import Scorer
from sanderling_quantize.checkpoint_ranker import CheckpointRanker
from sanderling_trainer.jobs.explain_decision import state_after
from sanderling_trainer.report.slot_table import SampledUser

SLOTS = 5
RECENT = 4
"""Past events that the page names."""

NAME_DIGITS = 8
"""Of a pseudonym, enough to tell three users apart."""

NO_DECISION = "0" * 32


class Release(Protocol):
    """One release, with which users can be served again."""

    release: int

    def slate(self, user: SampledUser) -> list[str]:
        """Return the ids of the user's greedy slate."""

    def reasons(self, user: SampledUser) -> list[str]:
        """Return a sentence for each item of that slate, "" where there is none."""

    def title(self, item: str) -> str:
        """Return an item's title, its id where it has none."""


class BundleRelease:
    """A bundle: slates as devices make them, with reasons."""

    def __init__(self, folder: Path) -> None:
        self._scorer = Scorer(Bundle.open(folder))
        self.manifest = self._scorer.bundle.manifest
        self.release = self.manifest.release

    def slate(self, user: SampledUser) -> list[str]:
        """Return the ids of the user's greedy slate under the bundle's rules."""
        return [item.id for item in self._inputs(user).record.slate]

    def reasons(self, user: SampledUser) -> list[str]:
        """Return a sentence for each item of that slate."""
        inputs = self._inputs(user)
        return [explain_item(inputs, item.id).sentence for item in inputs.record.slate]

    def title(self, item: str) -> str:
        """Return an item's title, its id where it has none."""
        row = self._scorer.find(item)
        return item if row is None else self._scorer.item(row).title or item

    def _inputs(self, user: SampledUser) -> DecisionInputs:
        scorer = self._scorer
        request = RecommendRequest(user.pseudonym, SLOTS, NO_CONTEXT, _hidden(user), {})
        request = rules_of(scorer).added_to(request)
        state = state_after(user.steps, scorer)
        vector = scorer.user_model.user_vector(state, None)
        plan = schemes.greedy(self.manifest.exploration)
        record = decisions.decide(scorer, vector, plan, request, NO_DECISION, user.pseudonym)
        return DecisionInputs(record, UserHistory(state, user.steps, len(user.steps)), None)


class CheckpointRelease:
    """A checkpoint: slates of the float policy, without rules and reasons."""

    def __init__(self, folder: Path) -> None:
        self._ranker = CheckpointRanker(folder)
        self.release = self._ranker.release

    def slate(self, user: SampledUser) -> list[str]:
        """Return the ids of the user's best items."""
        ranked = self._ranker.slate(user.pseudonym, user.steps, SLOTS, _hidden(user))
        return [item for item, _ in ranked]

    def reasons(self, user: SampledUser) -> list[str]:
        """Return an empty sentence for each item of that slate."""
        return [""] * len(self.slate(user))

    def title(self, item: str) -> str:
        """Return an item's title, its id where it has none."""
        return self._ranker.title(item)


class _Change(NamedTuple):
    """A user's slates under both releases."""

    user: SampledUser
    before: list[str]
    after: list[str]

    @property
    def kept(self) -> int:
        return len({*self.before} & {*self.after})


def changes_for_users(
    sample: Sequence[SampledUser], old: Release, new: Release
) -> dict[str, Any] | None:
    """Return the slates of three sampled users under two releases: of the one whose slate changes
    least, of the one in the middle, and of the one whose slate changes most.

    Slates are greedy, without a context, from each user's state at the end of the log. None where
    no user could be sampled.
    """
    if not sample:
        return None
    changes = [_Change(user, old.slate(user), new.slate(user)) for user in sample]
    changes.sort(key=lambda change: (change.kept, change.user.pseudonym), reverse=True)
    places = dict.fromkeys((0, len(changes) // 2, len(changes) - 1))
    slots = sum(len(change.after) for change in changes)
    return {
        "sampled": len(changes),
        "slots": SLOTS,
        "old_release": old.release,
        "new_release": new.release,
        "kept": sum(change.kept for change in changes) / slots if slots else None,
        "users": [_as_dict(changes[place], old, new) for place in places],
    }


def _as_dict(change: _Change, old: Release, new: Release) -> dict[str, Any]:
    """Return what the page shows of a user."""
    user = change.user
    recent = list(dict.fromkeys(reversed(user.steps)))[:RECENT]
    return {
        "name": user.pseudonym[:NAME_DIGITS],
        "events": len(user.steps),
        "recent": [{"title": new.title(item), "kind": kind} for item, kind in recent],
        "kept": change.kept,
        "hides_known": user.hides_known,
        "before": _lines(old, user, change.before, change.after),
        "after": _lines(new, user, change.after, change.before),
    }


def _lines(
    release: Release, user: SampledUser, slate: list[str], other: list[str]
) -> list[dict[str, Any]]:
    """Return the items of a slate with their reasons, and their slots on the other slate."""
    return [
        {
            "id": item,
            "title": release.title(item),
            "reason": _without_title(reason),
            "other_slot": other.index(item) if item in other else None,
        }
        for item, reason in zip(slate, release.reasons(user), strict=True)
    ]


def _hidden(user: SampledUser) -> tuple[str, ...]:
    """Return what the user has had, where the app does not show it again."""
    return tuple(dict.fromkeys(item for item, _ in user.steps)) if user.hides_known else ()


def _without_title(reason: str) -> str:
    """Return a reason that does not begin with the title, beside which it stands."""
    title, is_, rest = reason.partition("” is ")
    return f"{rest[:1].upper()}{rest[1:]}" if is_ and title.startswith("“") else reason
