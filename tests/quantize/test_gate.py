"""The gate: an intact bundle passes; one that is consistent in itself and yet wrong fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanderling_quantize import similarity
from sanderling_quantize.gate import TeacherTexts, TextSplit, Thresholds, report, run_checks
from sanderling_quantize.gate.reference_policy import QUERIES, FloatPolicy
from sanderling_quantize.gate.run_checks import ndcg_check
from sanderling_quantize.gate.thresholds import TIERS
from sanderling_trainer.data.histories import History
from sanderling_trainer.policy.holdout_queries import MAX_EVENTS, queries_of
from tests.support import gate_bundles as bundles
from tests.support.languages import TITLES

pytestmark = pytest.mark.lab

PROBE = "answers of the engine"


@pytest.fixture(scope="module")
def intact(shared):
    """One small trained checkpoint and its bundle; children use the kernels that start fastest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SANDERLING_KERNELS", "numpy")
        folder, _ = shared("gate", bundles.make)
        yield bundles.load(folder)


def failed(rows):
    return {row.check for row in rows if not row.passed}


def test_the_intact_bundle_passes_every_check(intact):
    """A bundle with the whole teacher in int8 passes the tier base, and no check is left out."""
    rows = intact.run_checks(intact.bundle)
    assert failed(rows) == set()
    assert len(rows) == 21
    assert {"check", "value", "threshold", "passed", "note"} == set(report(rows)[0])


def test_the_teacher_exported_by_the_tests_passes(intact, tmp_path):
    """The exporter of the damaged encoders is right when it damages nothing."""
    control = bundles.damaged(intact, tmp_path / "control", bundles.exported())
    assert failed(intact.run_checks(control)) == set()


def test_a_catalog_that_the_tokenizer_cannot_read_fails(intact):
    """A bundle that agrees with its language model fails where both are blind to the catalog; not
    where the checkpoint was trained anyway."""
    titles = [f"{title} {row}" for row in range(8) for title in TITLES["Chinese"]]
    foreign = replace(intact.checkpoint, texts=titles)
    texts = TextSplit(*(TeacherTexts([], np.empty((0, 32), np.float32)) for _ in range(2)))
    rows = run_checks(intact.bundle, foreign, texts, bundles.TIER)
    (row,) = [row for row in rows if row.check == "unknown characters"]
    assert not row.passed
    assert row.value > 0.5
    assert "--language-model" in row.note

    accepted = foreign.with_settings({"train_anyway": True})
    rows = run_checks(intact.bundle, accepted, texts, bundles.TIER)
    (row,) = [row for row in rows if row.check == "unknown characters"]
    assert (row.passed, row.note) == (True, "accepted by train_anyway")


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (bundles.shuffled_vocabulary, "spearman, unseen texts"),
        (bundles.exported(cls=True), "cosine, seen texts"),
        (bundles.exported(unit=False), "text vectors, length off 1"),
        (bundles.exported(drop=1), "cosine, unseen texts"),
        (bundles.coarse, "10 nearest, seen texts"),
        (bundles.swapped_records, "item ids out of place"),
        (bundles.another_catalog, "greedy slate of 10"),
        (bundles.fewer_items, "sizes"),
        (bundles.nan_in_policy, PROBE),
        (bundles.nan_in_encoder, PROBE),
        (bundles.truncated, PROBE),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damage_fails_a_check(intact, tmp_path, damage, check):
    """A damaged bundle with right hashes fails the check of that damage; failed rows come first."""
    rows = intact.run_checks(bundles.damaged(intact, tmp_path / "bundle", damage))
    assert check in failed(rows)
    assert [row.passed for row in rows] == sorted(row.passed for row in rows)


def test_golden_vectors_alone_miss_swapped_rows(intact, tmp_path):
    """A device's golden check passes two items with each other's vectors; the gate does not."""
    rows = intact.run_checks(bundles.damaged(intact, tmp_path / "bundle", bundles.swapped_rows))
    assert [row.passed for row in rows] == sorted(row.passed for row in rows)
    assert PROBE not in failed(rows)
    (row,) = [row for row in rows if row.check == "item rows, least agreement"]
    assert not row.passed
    assert row.note in ("item i000", "item i001")


def test_an_encoder_that_never_answers_is_stopped(intact, tmp_path):
    """A graph with an endless loop is one failing row after the time limit."""
    endless = bundles.damaged(intact, tmp_path / "bundle", bundles.endless)
    started = time.perf_counter()
    (row,) = intact.run_checks(endless, timeout_s=2.0)
    assert time.perf_counter() - started < 10
    assert not row.passed
    assert "longer than 2 s" in row.note


@pytest.mark.skipif(sys.platform != "linux", reason="finds the child in /proc")
def test_a_child_that_is_killed_is_a_failing_row(intact, tmp_path):
    """A segmentation fault in the child becomes words in one row; the gate itself goes on."""
    endless = bundles.damaged(intact, tmp_path / "bundle", bundles.endless)
    rows = []
    gate = Thread(target=lambda: rows.extend(intact.run_checks(endless, timeout_s=30.0)))
    gate.start()
    while gate.is_alive() and not (children := _children()):
        time.sleep(0.05)
    os.kill(children[0], signal.SIGSEGV)
    gate.join()
    assert [row.check for row in rows] == [PROBE]
    assert "signal 11" in rows[0].note


def _children() -> list[int]:
    """Return the ids of this process's children that are gates."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    children = [int(number) for task in tasks for number in task.read_text().split()]
    return [
        child
        for child in children
        if b"gate.probe_worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_a_folder_that_is_no_bundle_is_a_failing_row(intact, tmp_path):
    """An empty folder does not raise; the note is the bundle reader's message."""
    (row,) = intact.run_checks(tmp_path)
    assert (row.check, row.passed) == (PROBE, False)
    assert "BundleError: expected a bundle with a manifest.json" in row.note


def test_latency_and_sizes_are_checked(intact):
    """A bundle is as fast as itself as the previous release; it fails limits below what it has."""
    encoder = (intact.bundle / "encoder.onnx").stat().st_size
    total = sum(path.stat().st_size for path in intact.bundle.iterdir())
    strict = replace(bundles.TIER, latency=0.0, encoder_bytes=encoder - 1, bundle_bytes=total)
    checks = intact.run_checks(intact.bundle, strict, previous=intact.bundle)
    rows = {row.check: row for row in checks}
    assert failed(rows.values()) == {
        "encode, new / previous",
        "recommend, new / previous",
        "encoder bytes",
    }
    assert 0.5 < rows["encode, new / previous"].value < 2.0
    assert 0.5 < rows["recommend, new / previous"].value < 2.0
    assert "ms, before" in rows["encode, new / previous"].note


def test_checks_without_enough_texts_or_queries_are_left_out(intact, tmp_path):
    """29 texts have a cosine but no Spearman and no neighbours; no queries, no nDCG."""
    (tmp_path / "empty").mkdir()
    checkpoint = replace(intact.checkpoint, folder=tmp_path / "empty")
    texts = TeacherTexts(checkpoint.texts[:29], checkpoint.tensors["item.text"][:29])
    rows = run_checks(intact.bundle, checkpoint, TextSplit(texts, texts.first(0)), bundles.TIER)
    names = {row.check for row in rows}
    assert "cosine, seen texts" in names
    assert not any(
        name.startswith(("spearman", "10 nearest", "ndcg", "cosine, unseen")) for name in names
    )
    assert failed(rows) == set()


def test_the_child_loads_nothing_of_the_lab():
    """The gate measures a device: its child process imports no torch, no pyarrow, no onnx."""
    code = (
        "import sanderling_quantize.gate.probe_worker, sys;"
        " print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lab = {"torch", "transformers", "onnx", "optimum", "pandas", "pyarrow", "scipy"}
    assert not lab & set(done.stdout.split())


def test_tiers_are_ordered():
    """Base demands more than small, and small more than nano, wherever the tiers differ."""
    assert Thresholds() == Thresholds.of("small")
    for better, worse in (("base", "small"), ("small", "nano")):
        a, b = vars(TIERS[better]), vars(TIERS[worse])
        assert all(a[name] >= b[name] for name in a)
        assert a["encoder_bytes"] > b["encoder_bytes"]
    with pytest.raises(ValueError, match="expected one of base, small, nano, found 'huge'"):
        Thresholds.of("huge")


def test_the_trainer_writes_queries(intact):
    """The checkpoint's queries are of known items, and no relevant item is in the history."""
    queries = FloatPolicy(intact.checkpoint).held_out_queries(intact.checkpoint.folder)
    assert (intact.checkpoint.folder / QUERIES).exists()
    assert len(queries.histories) > 30
    for history, relevant in zip(queries.histories, queries.relevant, strict=True):
        assert relevant
        assert not relevant & {item for item, _ in history}


def test_queries_end_where_the_log_ends():
    """Relevant is what a user liked in the last fifth of the events, unless disliked or repeated.

    The users with the latest events are taken.
    """

    def history(items, liked, time):
        n = len(items)
        return History(
            np.array(items),
            np.zeros(n, np.int64),
            np.array(liked, np.bool_),
            np.full(n, -1),
            np.zeros(n, np.bool_),
            np.full(n, time),
        )

    early = history([1, 2, 3], [1, 1, 1], 5)
    late = history([4, 5, 6, 7, 8, 9, 10, 11, 4, 12], [0, 1, 1, 1, 1, 1, 1, 1, 1, 0], 9)
    long = history(range(100), [1] * 100, 7)
    queries = queries_of([early, late, long], repeats=True)
    assert [query["relevant"].tolist() for query in queries] == [[4], list(range(80, 100)), [3]]
    latest, *_ = queries_of([early, late, long], repeats=False)
    assert len(latest["items"]) == MAX_EVENTS
    assert latest["relevant"].tolist() == list(range(80, 100))


floats = st.floats(-10, 10, width=32)


@given(st.lists(floats, min_size=1, max_size=30), st.integers(1, 12))
def test_top_k_is_a_sort(scores, k):
    """The partition finds what sorting everything finds, ties by index."""
    slow = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:k]
    assert similarity.top_k(np.array(scores), k).tolist() == slow


@given(
    st.dictionaries(st.integers(0, 9), st.floats(0.01, 1), min_size=1),
    st.dictionaries(st.integers(0, 9), floats),
)
def test_total_variation_is_the_largest_difference_of_any_event(p, q):
    """It is the largest difference of any event's probability (Levin and Peres 2017, 4.1)."""
    q = {key: abs(value) + 0.01 for key, value in q.items()} or {0: 1.0}
    p = {key: value / sum(p.values()) for key, value in p.items()}
    q = {key: value / sum(q.values()) for key, value in q.items()}
    slow = sum(max(0.0, p.get(key, 0.0) - q.get(key, 0.0)) for key in range(10))
    assert similarity.total_variation(p, q) == pytest.approx(slow)


def test_ndcg_is_the_trainers():
    """The gate's nDCG is the one that the lab evaluates rankings by."""
    from sanderling_trainer.evaluation.metrics import ndcg

    rng = np.random.default_rng(0)
    rankings = [rng.permutation(30)[:20].tolist() for _ in range(20)]
    relevant = [set(rng.choice(30, rng.integers(1, 15), replace=False).tolist()) for _ in range(20)]
    slow = np.mean(
        [ndcg(ranking[:10], wanted, 10) for ranking, wanted in zip(rankings, relevant, strict=True)]
    )
    assert similarity.ndcg(rankings, relevant, 10).mean() == pytest.approx(slow)


def test_equal_vectors_agree_and_scaled_ones_do_not():
    """Equal vectors agree fully; a row twice as long has the same cosine and a lower agreement."""
    x = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    assert similarity.agreement(x, x) == pytest.approx(1.0)
    assert similarity.cosine(x, 2 * x) == pytest.approx(1.0)
    assert similarity.agreement(x, 2 * x) == pytest.approx(0.8)
    assert similarity.spearman(x, x) == pytest.approx(1.0)
    assert similarity.neighbour_overlap(x, x) == 1.0
    assert similarity.neighbour_overlap(x, x[::-1]) < 0.5


def test_a_lower_ndcg_fails_where_there_are_enough_users():
    """A tenth less gain fails with 2,000 users; with 80 whose slates differ, it passes."""
    rng = np.random.default_rng(0)
    exact = rng.random(2000)
    assert not ndcg_check(exact * 0.9, exact, bundles.TIER.ndcg).passed
    assert ndcg_check(exact, exact, bundles.TIER.ndcg).passed
    shuffled = exact[:80].copy()
    rng.shuffle(shuffled)
    assert ndcg_check(shuffled - 0.02, exact[:80], bundles.TIER.ndcg).passed
