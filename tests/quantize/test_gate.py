"""The bundle's gate: it passes a sound bundle, and refuses every damage that leaves the bundle whole in itself."""

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
from sanderling_quantize.gate import Thresholds, report, run_checks, spearman
from sanderling_quantize.gate.reference_policy import QUERIES, FloatPolicy
from sanderling_quantize.gate.run_checks import _gain
from sanderling_quantize.gate.thresholds import TIERS
from sanderling_trainer.data.histories import History
from sanderling_trainer.policy.holdout_queries import MAX_EVENTS, queries_of
from tests.support import gate_worlds as worlds

pytestmark = pytest.mark.lab

ANSWERS = "answers of the engine"


@pytest.fixture(scope="module")
def sound(shared):
    """One small real checkpoint and its bundle; children use the portable kernel, which starts faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SANDERLING_KERNELS", "numpy")
        folder, _ = shared("gate", worlds.make)
        yield worlds.opened(folder)


def failed(rows):
    return {row.check for row in rows if not row.passed}


def test_the_sound_bundle_passes_with_every_row(sound):
    """A bundle with the whole teacher in int8 passes the tier base, and nothing that can be judged is left out."""
    rows = sound.judge(sound.bundle)
    assert failed(rows) == set()
    assert len(rows) == 17
    assert {"check", "value", "threshold", "passed", "note"} == set(report(rows)[0])


def test_the_teacher_exported_by_the_tests_passes(sound, tmp_path):
    """The exporter of the damages is right when nothing is damaged, so that only the damage is what is refused."""
    assert (
        failed(sound.judge(worlds.damaged(sound, tmp_path / "control", worlds.exported()))) == set()
    )


@pytest.mark.parametrize(
    ("damage", "found_by"),
    [
        (worlds.shuffled_vocabulary, "spearman, unseen texts"),
        (worlds.exported(cls=True), "cosine, seen texts"),
        (worlds.exported(unit=False), "text vectors, length off 1"),
        (worlds.exported(drop=1), "cosine, unseen texts"),
        (worlds.coarse, "10 nearest, seen texts"),
        (worlds.swapped_rows, "item rows, least agreement"),
        (worlds.swapped_records, "item ids out of place"),
        (worlds.another_catalogue, "greedy slate of 10"),
        (worlds.fewer_items, "sizes"),
        (worlds.nan_in_policy, ANSWERS),
        (worlds.nan_in_encoder, ANSWERS),
        (worlds.truncated, ANSWERS),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_damage_is_refused(sound, tmp_path, damage, found_by):
    """A damaged bundle with right hashes fails in the row that names the damage, and failed rows come first."""
    rows = sound.judge(worlds.damaged(sound, tmp_path / "bundle", damage))
    assert found_by in failed(rows)
    assert [row.passed for row in rows] == sorted(row.passed for row in rows)


def test_golden_vectors_alone_do_not_find_swapped_rows(sound, tmp_path):
    """The golden check of a device passes two items with each other's vectors: without the gate they were released."""
    (row,) = [
        row
        for row in sound.judge(worlds.damaged(sound, tmp_path / "b", worlds.swapped_rows))
        if not row.passed
    ]
    assert row.check == "item rows, least agreement"
    assert row.note in ("item i000", "item i001")


def test_an_encoder_that_never_answers_is_stopped(sound, tmp_path):
    """A graph with an endless loop is one failing row after the time limit."""
    started = time.perf_counter()
    (row,) = sound.judge(worlds.damaged(sound, tmp_path / "bundle", worlds.endless), timeout_s=2.0)
    assert time.perf_counter() - started < 10
    assert not row.passed
    assert "longer than 2 s" in row.note


@pytest.mark.skipif(sys.platform != "linux", reason="finds the child in /proc")
def test_a_child_that_is_killed_is_a_failing_row(sound, tmp_path):
    """A segmentation fault in the child is told in words, and the gate itself lives on."""
    endless = worlds.damaged(sound, tmp_path / "bundle", worlds.endless)
    rows = []
    gate = Thread(target=lambda: rows.extend(sound.judge(endless, timeout_s=30.0)))
    gate.start()
    while gate.is_alive() and not (children := _children()):
        time.sleep(0.05)
    os.kill(children[0], signal.SIGSEGV)
    gate.join()
    assert [row.check for row in rows] == [ANSWERS]
    assert "signal 11" in rows[0].note


def _children() -> list[int]:
    """Return the ids of this process's children that are gates."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    found = [int(number) for task in tasks for number in task.read_text().split()]
    return [
        child for child in found if b"gate.child" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_a_folder_that_is_no_bundle_is_a_failing_row(sound, tmp_path):
    """An empty folder does not raise; the note is the reader's own sentence."""
    (row,) = sound.judge(tmp_path)
    assert (row.check, row.passed) == (ANSWERS, False)
    assert "BundleError: expected a bundle with a manifest.json" in row.note


def test_latency_and_sizes_are_judged(sound):
    """Against itself as the previous release a bundle is as fast; limits just below what was measured refuse it."""
    encoder = (sound.bundle / "encoder.onnx").stat().st_size
    total = sum(path.stat().st_size for path in sound.bundle.iterdir())
    strict = replace(worlds.TIER, latency=0.0, encoder_bytes=encoder - 1, bundle_bytes=total)
    rows = {row.check: row for row in sound.judge(sound.bundle, strict, previous=sound.bundle)}
    assert failed(rows.values()) == {
        "encode, new / previous",
        "recommend, new / previous",
        "encoder bytes",
    }
    assert 0.5 < rows["encode, new / previous"].value < 2.0
    assert 0.5 < rows["recommend, new / previous"].value < 2.0
    assert "ms, before" in rows["encode, new / previous"].note


def test_what_too_few_would_decide_is_left_out(sound, tmp_path):
    """29 texts have a cosine but no Spearman and no neighbours; a checkpoint without queries has no nDCG."""
    (tmp_path / "empty").mkdir()
    checkpoint = replace(sound.checkpoint, folder=tmp_path / "empty")
    texts, vectors = checkpoint.texts[:29], checkpoint.tensors["item.text"][:29]
    rows = run_checks(sound.bundle, checkpoint, (texts, vectors), ([], vectors[:0]), worlds.TIER)
    names = {row.check for row in rows}
    assert "cosine, seen texts" in names
    assert not any(
        name.startswith(("spearman", "10 nearest", "ndcg", "cosine, unseen")) for name in names
    )
    assert failed(rows) == set()


def test_the_child_loads_nothing_of_the_lab():
    """What the gate measures is a device: its process knows no torch, no pyarrow, no onnx."""
    code = "import sanderling_quantize.gate.probe_worker, sys; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "onnx", "optimum", "pandas", "pyarrow", "scipy"} & set(
        done.stdout.split()
    )


def test_tiers_are_ordered():
    """Base asks for more than small and small for more than nano in every figure that a tier has of its own."""
    assert Thresholds() == Thresholds.of("small")
    for better, worse in (("base", "small"), ("small", "nano")):
        a, b = vars(TIERS[better]), vars(TIERS[worse])
        assert all(a[name] >= b[name] for name in a)
        assert a["encoder_bytes"] > b["encoder_bytes"]
    with pytest.raises(ValueError, match="expected one of base, small, nano, found 'huge'"):
        Thresholds.of("huge")


def test_the_trainer_writes_queries(sound):
    """The checkpoint's queries are of known items, none of which is relevant and had before."""
    queries = FloatPolicy(sound.checkpoint).queries(sound.checkpoint.folder)
    assert (sound.checkpoint.folder / QUERIES).exists()
    assert len(queries.histories) > 30
    for history, relevant in zip(queries.histories, queries.relevant, strict=True):
        assert relevant
        assert not relevant & {item for item, _ in history}


def test_queries_end_where_the_log_ends():
    """The last fifth of a user's events is what is to be found, disliked and repeated items are not, and the users who
    came last are taken."""

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
    assert [
        query["relevant"].tolist() for query in queries_of([early, late, long], repeats=True)
    ] == [
        [4],
        list(range(80, 100)),
        [3],
    ]
    latest, *_ = queries_of([early, late, long], repeats=False)
    assert (len(latest["items"]), latest["relevant"].tolist()) == (
        MAX_EVENTS,
        list(range(80, 100)),
    )


floats = st.floats(-10, 10, width=32)


@given(st.lists(floats, min_size=1, max_size=30), st.integers(1, 12))
def test_best_is_a_sort(scores, k):
    """The partition finds what sorting everything finds, ties by place."""
    slow = sorted(range(len(scores)), key=lambda at: (-scores[at], at))[:k]
    assert similarity.best(np.array(scores), k).tolist() == slow


@given(
    st.dictionaries(st.integers(0, 9), st.floats(0.01, 1), min_size=1),
    st.dictionaries(st.integers(0, 9), floats),
)
def test_total_variation_is_the_largest_difference_of_any_event(p, q):
    """Half the absolute differences is the largest difference that any set of outcomes shows (Levin and Peres 2017)."""
    q = {key: abs(value) + 0.01 for key, value in q.items()} or {0: 1.0}
    p = {key: value / sum(p.values()) for key, value in p.items()}
    q = {key: value / sum(q.values()) for key, value in q.items()}
    slow = sum(max(0.0, p.get(key, 0.0) - q.get(key, 0.0)) for key in range(10))
    assert similarity.total_variation(p, q) == pytest.approx(slow)


def test_ndcg_is_the_trainers():
    """The gate's nDCG is the one by which the lab judges rankings."""
    from sanderling_trainer.evaluation.metrics import ndcg

    rng = np.random.default_rng(0)
    rankings = [rng.permutation(30)[:20].tolist() for _ in range(20)]
    relevant = [set(rng.choice(30, rng.integers(1, 15), replace=False).tolist()) for _ in range(20)]
    slow = np.mean(
        [ndcg(ranking[:10], wanted, 10) for ranking, wanted in zip(rankings, relevant, strict=True)]
    )
    assert similarity.ndcg(rankings, relevant, 10).mean() == pytest.approx(slow)


def test_alike_is_one_and_scaling_is_seen():
    """Equal vectors agree fully; a row twice as long has the same cosine and is still found by the agreement."""
    x = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    assert similarity.agreement(x, x) == pytest.approx(1.0)
    assert similarity.cosine(x, 2 * x) == pytest.approx(1.0)
    assert similarity.agreement(x, 2 * x) == pytest.approx(0.8)
    assert spearman(x, x) == pytest.approx(1.0)
    assert similarity.neighbours(x, x) == 1.0
    assert similarity.neighbours(x, x[::-1]) < 0.5


def test_a_lower_ndcg_is_refused_where_there_are_enough_users_to_tell():
    """A tenth less gain fails with 2,000 users; with 80, whose slates differ by luck alone, the row does not decide."""
    rng = np.random.default_rng(0)
    exact = rng.random(2000)
    assert not _gain(exact * 0.9, exact, worlds.TIER).passed
    assert _gain(exact, exact, worlds.TIER).passed
    shuffled = exact[:80].copy()
    rng.shuffle(shuffled)
    assert _gain(shuffled - 0.02, exact[:80], worlds.TIER).passed
