"""The rules of a bundle, which hold for every request beside its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import msgspec

from sanderling.bundle.manifest import Rules
from sanderling.errors import BundleError
from sanderling.ranking import boosts, rules
from sanderling.ranking.boosts import MAX_BOOSTS, NO_BOOSTS, Boost
from sanderling.ranking.decision import RecommendRequest
from sanderling.ranking.rules import Connective, Rule
from sanderling.ranking.scorer import Scorer


class BundleRules(NamedTuple):
    """The rules of one bundle, checked."""

    where: Rule | None
    at_most: Mapping[str, int]
    boost: tuple[Boost, ...]
    diversity: float

    def added_to(self, request: RecommendRequest) -> RecommendRequest:
        """Return a request that asks for these rules, too.

        Of two caps on an attribute the smaller one counts, of two diversities the request's own.

        Raises `ValueError` where the boosts of both are more than 16.
        """
        if self is NO_RULES:
            return request
        caps = dict(self.at_most)
        for attribute, cap in request.at_most.items():
            caps[attribute] = min(cap, caps.get(attribute, cap))
        if len(self.boost) + len(request.boost) > MAX_BOOSTS:
            raise ValueError(
                f"boost: expected at most {MAX_BOOSTS} entries, of which the bundle's rules have"
                f" {len(self.boost)}, found {len(request.boost)} more"
            )
        return request._replace(
            where=_both(self.where, request.where),
            at_most=caps,
            boost=self.boost + request.boost,
            diversity=request.diversity or self.diversity,
        )


NO_RULES = BundleRules(None, {}, NO_BOOSTS, 0.0)


def parse(given: Rules | None) -> BundleRules:
    """Return the rules of a manifest; raise `BundleError` for what is none."""
    if given is None:
        return NO_RULES
    try:
        return BundleRules(
            rules.parse(given.where) if given.where else None,
            given.at_most,
            boosts.parse(given.boost),
            given.diversity,
        )
    except (TypeError, ValueError) as error:
        raise BundleError(f"manifest.json: rules: {error}") from error


def rules_of(scorer: Scorer) -> BundleRules:
    """Return the rules of a scorer's bundle, which are read once."""
    given = scorer.bundle.manifest.rules
    if given is None:
        return NO_RULES
    return _parsed(msgspec.json.encode(given))


def fault_in(scorer: Scorer, checked: BundleRules) -> str | None:
    """Return what is wrong with rules in a catalog: an attribute that no item has, or that no item
    meets them; None for nothing."""
    if checked.where is None and not checked.boost:
        return None
    try:
        eligible = scorer.eligible(checked.where, None, checked.boost)
    except (TypeError, ValueError) as error:
        return str(error)
    user = scorer.user_model.user_vector(scorer.user_model.initial_state())
    if not scorer.rank(user, 1, eligible=eligible).eligible:
        return "where: expected a rule that some items meet, found one of none"
    return None


@lru_cache(maxsize=8)
def _parsed(given: bytes) -> BundleRules:
    return parse(msgspec.json.decode(given, type=Rules))


def _both(first: Rule | None, second: Rule | None) -> Rule | None:
    if first is None or second is None:
        return first or second
    canonical = b'{"and":[' + first.canonical + b"," + second.canonical + b"]}"
    return Rule(canonical, Connective("and", (first.condition, second.condition)))
