"""The model card says what the manifest says, and what it does not know it leaves out."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from typer.testing import CliRunner

from sanderling.bundle import manifest as manifests
from sanderling.cli.app import make_app
from sanderling.cli.card import as_markdown, limits
from sanderling.cli.tiny import BUNDLE
from sanderling.errors import BundleError

VALUE = {"value": 0.2, "low": 0.1, "high": 0.3}
CARD = {
    "log": {"events": 23_520, "users": 494},
    "loses": True,
    "ranking": [
        {
            "protocol": "warm users",
            "users": 36,
            "models": [
                {"name": "popularity", "ndcg@10": VALUE},
                {"name": "Sanderling", "ndcg@10": VALUE | {"value": 0.25}, "recall@10": VALUE},
            ],
        },
        {"protocol": "new users", "users": 4000, "models": []},
    ],
    "learning": {"learner": "click_regression", "decisions": 801},
    "sentence": "Release 2 is expected to get more clicks.",
}


def manifest_with(card):
    manifest = manifests.read(BUNDLE)
    return msgspec.structs.replace(manifest, reports={**manifest.reports, "card": card})


def test_a_card_has_the_figures_of_training_and_gate():
    """Log, tables beside baselines with intervals, retraining, and every check of the gate."""
    text = as_markdown(manifest_with(CARD))
    assert "23,520 events of 494 users" in text
    assert "| Sanderling | 0.250 [0.100, 0.300] | 0.200 [0.100, 0.300] |  |" in text
    assert "801 logged decisions" in text
    assert CARD["sentence"] in text
    for check in manifests.read(BUNDLE).reports["gate"]:
        assert f"| {check['check']} |" in text


def test_a_card_warns():
    """Of a baseline that was better, of windows with few users, and of accepted faults."""
    accepted = {
        "check": "unknown characters",
        "value": 0.2,
        "threshold": 1.0,
        "passed": True,
        "note": "accepted by train_anyway",
    }
    manifest = manifest_with(CARD)
    manifest = msgspec.structs.replace(manifest, reports={**manifest.reports, "gate": [accepted]})
    found = "\n".join(limits(manifest))
    assert "worse than a baseline" in found
    assert "warm users” rests on 36 users" in found
    assert "new users" not in found
    assert "unknown characters: 0.2, accepted by train_anyway." in found


def test_a_card_without_figures_says_so():
    """A bundle of another maker, with empty reports, has a card without empty sections."""
    manifest = msgspec.structs.replace(manifests.read(BUNDLE), reports={})
    text = as_markdown(manifest)
    assert "made without figures" in text
    assert not re.search(r"^## .*\n+(## |\Z)", text, re.MULTILINE)


@pytest.mark.parametrize(
    "reports",
    [
        {"card": [1]},
        {"card": {"ranking": [{}]}},
        {"encoder": 3, "gate": [{"check": "a", "value": 1.0, "threshold": 1.0, "note": ""}]},
        {"gate": [{"check": "a", "value": "x", "threshold": 1.0, "note": ""}]},
    ],
)
def test_other_reports_are_a_fault_of_the_bundle(tmp_path, reports):
    """`reports` may hold anything; what is no figures of ours is an error that names the file."""
    content = json.loads((BUNDLE / "manifest.json").read_text()) | {"reports": reports}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    done = CliRunner().invoke(make_app(), ["card", "--bundle", str(tmp_path)])
    assert isinstance(done.exception, BundleError)
    assert "manifest.json: expected the `reports`" in str(done.exception)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_the_command_prints_the_card(flags):
    """As Markdown, or as one JSON object with the limits."""
    done = CliRunner().invoke(make_app(), ["card", "--bundle", str(BUNDLE), *flags])
    assert done.exit_code == 0
    if flags:
        assert json.loads(done.stdout)["limits"] == limits(manifests.read(BUNDLE))
    else:
        assert done.stdout.startswith("# Model card: tiny, release 1\n")
