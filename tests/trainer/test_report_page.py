"""The report's page: from each source alone and from all, valid, self-contained, and escaped."""

from __future__ import annotations

import json
import re
from itertools import product

import pytest

from sanderling.bundle.manifest import Arm, Experiment
from sanderling_quantize.checkpoint import CheckpointError
from sanderling_trainer.report import user_changes
from sanderling_trainer.report.collect import Sources, collect
from sanderling_trainer.report.findings import findings
from sanderling_trainer.report.page import render, write_page
from tests.support.bundles import write_bundle
from tests.support.html_pages import faults_of, text_of
from tests.support.report_logs import fleet_events, install_of, upload, user_of

pytestmark = pytest.mark.lab

HOSTILE = "<script>alert(1)</script> & \"quoted\" 'title'"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Return two bundles of different policies, whose titles are hostile."""
    folder = tmp_path_factory.mktemp("bundles")
    experiment = Experiment("shelf", (Arm("bold", 0.5),))
    for release in (1, 2):
        write_bundle(
            folder / str(release),
            release,
            items=60,
            seed=release,
            attributes=lambda row: {"title": f"{HOSTILE} {row}"},
            experiment=experiment,
        )
    return [folder / "1", folder / "2"]


def page_of(tmp_path, events, **sources):
    """Return the parts of the report of a store with these events, and its page."""
    upload(tmp_path / "events", events)
    content = collect(Sources(str(tmp_path / "events"), **sources))
    html = render(content)
    assert faults_of(html) == []
    return content, html


def write_checkpoint(folder, release=2, **metrics):
    """Write what the report reads of a checkpoint."""
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.json").write_text(json.dumps({"release": release}))
    return folder


def test_three_users_are_served_again_under_both_bundles(tmp_path, bundles):
    """The page shows three pseudonyms, the titles before and after, and why; titles stay text."""
    content, html = page_of(tmp_path, fleet_events(24), bundles=bundles)
    changes = content["changes"]
    assert changes["old_release"] == 1
    assert changes["new_release"] == 2
    assert len(changes["users"]) == 3
    kept = [user["kept"] for user in changes["users"]]
    assert kept == sorted(kept, reverse=True)
    for user in changes["users"]:
        before, after = ([item["id"] for item in user[when]] for when in ("before", "after"))
        assert len(before) == len(after) == 5
        assert user["kept"] == len({*before} & {*after})
    text = text_of(html)
    assert HOSTILE in text
    assert "<script" not in html
    assert "hown because" in text


def test_users_are_known_by_parts_of_pseudonyms_alone(tmp_path, bundles):
    """Neither whole pseudonyms nor installs stand in the page."""
    _, html = page_of(tmp_path, fleet_events(24), bundles=bundles)
    for number in range(1, 25):
        assert user_of(number) not in html
        assert install_of(number) not in html


def test_the_first_paragraph_says_better_lost_and_what_to_do(tmp_path):
    """A release that gets twice the clicks is better, nothing is lost, and it should be kept."""
    content, html = page_of(tmp_path, fleet_events(24))
    found = findings(content)
    assert found["tone"] == "better"
    assert found["headline"].startswith("Release 2 gets more clicks than release 1: ")
    assert "Nothing is lost" in found["paragraph"]
    assert "keep release 2" in found["paragraph"]
    assert found["headline"] in text_of(html)
    rate = content["events"]["releases"][1]["rate"]["value"]
    assert f"{100 * rate:.2f}\u00a0%" in html


def test_a_worse_release_should_be_withdrawn(tmp_path):
    """A later release that gets half the clicks is worse, and gaps ask for a rotation."""
    events = fleet_events(24, (2, 1))
    events = [event for event in events if (event.install, event.seq) != (install_of(1), 2)]
    content, _ = page_of(tmp_path, events)
    found = findings(content)
    assert found["tone"] == "worse"
    assert "sanderling release withdraw --release 2" in found["paragraph"]
    assert "sanderling installs rotate" in found["paragraph"]


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "The store holds no slates yet."),
        (fleet_events(1)[:1], "nothing is known yet of what users did"),
        (fleet_events(12, (1,)), "there is no other release to compare it with"),
    ],
    ids=["empty", "one event", "one release"],
)
def test_stores_with_little_in_them_make_a_page(tmp_path, bundles, events, said):
    """An empty store, one event, no rewards and one release each give a page that says so."""
    content, html = page_of(tmp_path, events, bundles=bundles)
    assert said in findings(content)["headline"]
    assert said in text_of(html)


def test_a_long_line_of_releases_is_cut(tmp_path):
    """Of 15 releases the tables show the latest 12, and say so; the figures have all."""
    content, html = page_of(tmp_path, fleet_events(12, range(1, 16)))
    assert len(content["events"]["releases"]) == 15
    assert html.count('<th scope="row">4</th>') == 3
    assert '<th scope="row">3</th>' not in html
    assert "the latest 12 releases, of 15" in text_of(html)


def test_checkpoints_serve_users_where_there_are_no_bundles(tmp_path, monkeypatch):
    """Two checkpoints give slates without reasons, and titles of the later one."""

    class Ranker:
        def __init__(self, folder):
            self.release = int(folder.name)

        def slate(self, user, history, k, exclude):
            return [(f"item-{self.release + row}", 1.0) for row in range(k)]

        def title(self, item):
            return f"title of {item}"

    monkeypatch.setattr(user_changes, "CheckpointRanker", Ranker)
    folders = [write_checkpoint(tmp_path / str(number), release=number) for number in (2, 1)]
    content, html = page_of(tmp_path, fleet_events(24), checkpoints=folders)
    user = content["changes"]["users"][0]
    assert [item["id"] for item in user["before"]] == [f"item-{row}" for row in range(1, 6)]
    assert [item["id"] for item in user["after"]] == [f"item-{row}" for row in range(2, 7)]
    assert user["kept"] == 4
    assert "title of item-6 new" in text_of(html)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_texts_stand_out_from_their_ground(scheme):
    """Every colour of texts has a contrast of 4.5 or more to page and cards (WCAG 2.2, AA)."""
    style = render({})
    blocks = re.findall(r":root {([^}]*)}", style)
    colours = dict(
        re.findall(r"--(\w+): (#\w+);", blocks[("light", "dark", "print").index(scheme)])
    )
    for text, ground in product(("ink", "soft", "accent", "good", "bad"), ("paper", "card")):
        lighter, darker = sorted((luminance(colours[text]), luminance(colours[ground])))[::-1]
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, ground)


def luminance(colour):
    """Return the relative luminance of a hex colour."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_arms_are_compared_where_a_bundle_declares_them(tmp_path, bundles):
    """With the bundle the arms have verdicts; without it one sentence says what would show them."""
    events = fleet_events(24, experiment="shelf")
    content, html = page_of(tmp_path, events, bundles=bundles)
    (experiment,) = content["experiments"]
    assert {arm["name"] for arm in experiment["arms"]} == {"rest", "bold"}
    assert "shelf, day" in text_of(html)
    _, without = page_of(tmp_path / "without", events)
    assert "Decisions name shelf; give the bundle that declares it" in text_of(without)


def test_checkpoints_show_what_the_gate_expected(tmp_path):
    """The sentence is the headline, estimates are folded, and refused ones have their reason."""
    ope = {
        "decisions": 5,
        "units": 3,
        "resampled": "installs",
        "families": [{"family": "PBM", "value": 0.1, "error": 0.05, "ess": 9.0}],
        "estimates": [],
        "refused_estimates": [{"policy": "new", "estimator": "IPS", "refused": "<i>small</i>"}],
    }
    folder = write_checkpoint(tmp_path / "next", sentence="Release 2 ships.", ope=ope)
    html = render(collect(Sources(checkpoints=[folder])))
    assert faults_of(html) == []
    assert "<details>" in html
    assert "<h1>Release 2 ships.</h1>" in html
    assert "&lt;i&gt;small" in html
    assert "+0.2\u00a0% to +19.8\u00a0%" in html


@pytest.mark.parametrize(
    "metrics", ['{"catalog": 7}', '{"sentence": 5}', '{"ope": [1]}', "[1]", "{", '"\\ud800"']
)
def test_metrics_of_something_else_are_refused(tmp_path, metrics):
    """A metrics.json that no training wrote is an error that names it and says who writes it."""
    folder = write_checkpoint(tmp_path / "next")
    (folder / "metrics.json").write_text(metrics)
    with pytest.raises(CheckpointError, match=r"metrics\.json: expected what `sanderling train`"):
        collect(Sources(checkpoints=[folder]))


def test_the_folder_of_the_page_is_made(tmp_path):
    """`--out` may name a file in folders that are not there yet, as of every other command."""
    write_page({}, tmp_path / "new" / "folder" / "page.html")
    assert (tmp_path / "new" / "folder" / "page.html").read_text(encoding="utf-8") == render({})


def test_a_file_is_no_checkpoint(tmp_path):
    """A file instead of a checkpoint's folder is an error in the words of the command."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="expected the metrics of a checkpoint"):
        collect(Sources(checkpoints=[tmp_path / "file"]))


def test_a_store_is_not_any_folder(tmp_path):
    """A folder above the store, or of something else, is refused; an empty one, and one that has
    only what a volume has, are stores without events; a file is called one."""
    (tmp_path / "events" / "segments").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="found one with events, file in it; check --even"):
        collect(Sources(str(tmp_path)))
    with pytest.raises(FileNotFoundError, match="found a file"):
        collect(Sources(str(tmp_path / "file")))
    (tmp_path / "new" / "lost+found").mkdir(parents=True)
    for store in ("events", "new"):
        assert collect(Sources(str(tmp_path / store)))["events"]["slates"] == 0


def test_sections_without_a_source_say_what_shows_them(tmp_path):
    """Without events the page says that `--events` shows click rates; with them it does not."""
    html = render({})
    assert faults_of(html) == []
    assert "--events STORE" in text_of(html)
    _, with_events = page_of(tmp_path, fleet_events(12))
    assert "--events STORE" not in text_of(with_events)
    assert "--bundle OLD --bundle NEW" in text_of(with_events)
