"""Rules that ride in the bundle hold for every request, beside its own."""

from __future__ import annotations

import re
from collections import Counter

import msgspec
import pytest

from sanderling import Engine
from sanderling.bundle import manifest as manifests
from sanderling.bundle.manifest import Rules
from sanderling.bundle.reader import Bundle
from sanderling.errors import BundleError
from sanderling.ranking import bundle_rules
from sanderling.ranking.golden_check import faults
from tests.support.fakes import FakeClock
from tests.support.shops import write_shop

RULES = {
    "where": {"stock": {"gt": 0}},
    "at_most": {"genre": 2},
    "boost": [{"where": {"genre": "jazz"}, "by": 0.7}],
    "diversity": 0.3,
}


def opened(folder, rules):
    """Open an engine on the shop's bundle with rules in its manifest."""
    write_shop(folder)
    given = None if rules is None else msgspec.convert(rules, Rules)
    manifest = msgspec.structs.replace(manifests.read(folder), rules=given)
    (folder / manifests.MANIFEST).write_bytes(manifests.dump(manifest))
    return Engine.open(folder, entropy=bytes, clock=FakeClock())


def shown(engine, **arguments):
    """Return what a slate shows, with its probabilities."""
    slate = engine.recommend("anna", 6, **arguments)
    return [(item.id, item.score, item.propensity) for item in slate]


def test_they_are_those_of_a_request(tmp_path):
    """A bundle's rules, and the same ones asked for, give the same slate bit for bit, explained
    alike; some by the bundle and others by the request too."""
    with opened(tmp_path / "none", None) as plain, opened(tmp_path / "all", RULES) as engine:
        wanted = shown(plain, **RULES)
        assert shown(engine) == wanted
        assert wanted != shown(plain)
        slate = engine.recommend("anna", 6)
        assert engine.explain(slate.decision).is_identical
        assert slate[0].why().rules == plain.recommend("anna", 6, **RULES)[0].why().rules
    for name, rule in RULES.items():
        rest = {other: value for other, value in RULES.items() if other != name}
        with opened(tmp_path / name, {name: rule}) as engine:
            assert shown(engine, **rest) == wanted


def test_both_hold(tmp_path):
    """Of two caps the smaller counts, both conditions must be met, boosts add up, and the request's
    own diversity counts."""
    with opened(tmp_path / "none", None) as plain, opened(tmp_path / "all", RULES) as engine:
        where = {"sale": True}
        boost = [{"where": {"stock": {"ge": 3}}, "by": 0.4}]
        own = {
            "where": where,
            "at_most": {"genre": 3, "stock": 2},
            "boost": boost,
            "diversity": 0.8,
        }
        both = {
            "where": {"and": [RULES["where"], where]},
            "at_most": {"genre": 2, "stock": 2},
            "boost": [*RULES["boost"], *boost],
            "diversity": 0.8,
        }
        assert shown(engine, **own) == shown(plain, **both)
        slate = engine.recommend("anna", 6, at_most={"genre": 5})
        assert all(item.attributes["stock"] > 0 for item in slate)
        assert max(Counter(item.attributes.get("genre") for item in slate).values()) <= 2


def test_too_many_boosts_together_are_the_callers_error(tmp_path):
    """The message says how many of the 16 are taken; nothing is rolled back."""
    boost = [{"where": {"stock": 1}, "by": 0.1}] * 16
    with opened(tmp_path / "all", RULES) as engine:
        with pytest.raises(ValueError, match="of which the bundle's rules have 1, found 16 more"):
            engine.recommend("anna", boost=boost)
        assert len(engine.recommend("anna", 6)) == 6


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"where": {"stock": {"above": 0}}}, "expected an operator"),
        ({"boost": [{"by": 1.0}]}, "expected `where` and `by`"),
    ],
)
def test_what_is_no_rule_is_a_fault_of_the_bundle(rules, message):
    """The message names the manifest."""
    with pytest.raises(BundleError, match=f"manifest.json: rules: .*{message}"):
        bundle_rules.parse(msgspec.convert(rules, Rules))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"where": {"stok": {"gt": 0}}}, "rules: .*stok"),
        ({"boost": [{"where": {"gender": "jazz"}, "by": 1.0}]}, "rules: .*gender"),
        ({"where": {"stock": {"gt": 1e9}}}, "rules: where: expected a rule that some items meet"),
        ({"where": {"stock": {"above": 0}}}, "rules: .*expected an operator"),
    ],
)
def test_a_bundle_whose_rules_no_request_can_meet_is_refused(tmp_path, rules, message):
    """By what tries a release before it is installed and published: each request would fail, by
    what looks like its own error, and nothing would be rolled back."""
    with opened(tmp_path / "shop", rules):
        (fault,) = faults(Bundle.open(tmp_path / "shop"))
    assert re.search(message, fault)


@pytest.mark.parametrize(
    "rules", [{"at_most": {"genre": 0}}, {"diversity": 1.5}, {"pin": {}}, {"at_most": {"": 1}}]
)
def test_fields_out_of_range_do_not_open(rules):
    """Numbers are checked by the manifest's types."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(rules, Rules)
