"""The parts of examples/finance: head, sequential test, rule of windows, webhook, loading."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from examples.finance.head import PENALTIES, Head
from examples.finance.surges import SurgeTest
from examples.finance.webhook import send
from examples.financial_baselines import delays, window_rule
from examples.financial_news import HISTORY, ONSET, SURGE, newsrooms, parse_phrases

LAWS = {
    "all equal": lambda rng, n: np.zeros(n),
    "rarely flagged": lambda rng, n: (rng.random(n) < 0.03).astype(float),
    "counts of words": lambda rng, n: rng.poisson(0.7, n).astype(float),
    "heavy tails": lambda rng, n: rng.standard_cauchy(n),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
@pytest.mark.parametrize("n_history", [0, 30])
def test_quiet_streams_rarely_alert(law, n_history):
    """Whatever scores are like, an alert within t of `hours` hours has a probability of at most
    t / hours while they are exchangeable."""
    rng = np.random.default_rng(4)
    n_streams, hours, until = 400, 20.0, 10
    alerted = 0
    for _ in range(n_streams):
        test = SurgeTest(law(rng, n_history), hours, rng)
        alerted += any(test.alerts(law(rng, rng.poisson(2.0))) for _ in range(until))
    assert alerted <= binom.ppf(0.9999, n_streams, until / hours)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 7.0]), min_size=3, max_size=6), st.integers(0, 99))
def test_the_bets_are_fair_in_every_order_of_the_scores(scores, seed):
    """Over all orders of any scores the evidence after one headline is at most 1 in the mean: the
    definition of an e-value for exchangeable scores."""
    rng = np.random.default_rng(seed)
    evidence = []
    for _ in range(1500):
        *past, new = rng.permutation(scores)
        test = SurgeTest(past, np.inf, rng)
        assert not test.alerts([new])
        evidence.append(test.evidence.mean())
    error = np.std(evidence) / np.sqrt(len(evidence))
    assert abs(np.mean(evidence) - 1.0) <= 4.5 * error + 1e-9


def test_a_surge_is_found_soon_and_becomes_the_new_normal():
    """Where half of the headlines become bad, an alert comes within hours; much later, when they
    always were, alerts are as rare as before."""
    rng = np.random.default_rng(0)
    test = SurgeTest(rng.random(300), 1000.0, rng)
    surge = [
        test.alerts(rng.random(5) + (rng.random(5) < 0.5) * rng.uniform(0.0, 1.0, 5))
        for _ in range(3000)
    ]
    assert any(surge[:12])
    assert sum(surge[1000:]) <= 6


def test_a_head_is_the_ridge_regression_of_its_feedback():
    """After feedback one by one the scores are those of the closed form, for one of the penalties,
    whatever the order was."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 8))
    labels = np.array(["bad", "good"])[(x @ rng.normal(size=8) > 0).astype(int)]
    head = Head(["bad", "good"], 8)
    head.learn(x[:25], labels[:25])
    head.learn(x[25:], labels[25:])

    ones = np.c_[x, np.ones(60)]
    target = np.where(labels[:, None] == ["bad", "good"], 1.0, -1.0)
    exact = [
        ones @ np.linalg.solve(ones.T @ ones + penalty * np.eye(9), ones.T @ target)
        for penalty in PENALTIES
    ]
    assert min(np.abs(head.scores(x) - each).max() for each in exact) < 1e-9


def test_a_head_answers_with_the_penalty_that_predicted_best():
    """Noise without any signal calls for the largest penalty, many clear labels for the least."""
    rng = np.random.default_rng(2)
    for is_noise, expected in ((True, PENALTIES[-1]), (False, PENALTIES[0])):
        x = rng.normal(size=(40, 20)) / np.sqrt(20)
        labels = np.where((rng.random(40) if is_noise else x[:, 0] + 0.5) > 0.5, "a", "b")
        head = Head(["a", "b"], 20)
        head.learn(x, labels)
        ones = np.c_[x, np.ones(40)]
        target = np.where(labels[:, None] == ["a", "b"], 1.0, -1.0)
        exact = np.linalg.solve(ones.T @ ones + expected * np.eye(21), ones.T @ target)
        np.testing.assert_allclose(head.scores(x), ones @ exact, atol=1e-9)


def test_the_rule_of_windows_alerts_once_in_a_window():
    """Flagged stories beyond the base rate alert, quiet ones do not; then a window is silent."""
    hour = np.repeat(np.arange(ONSET + 40), 4)
    sentence = np.where(hour >= ONSET, 0, np.arange(len(hour)) % 4)
    flags = np.array([True, False, False, False])
    alerts = window_rule(flags, 8, 4.0)(hour, sentence)
    assert ONSET < alerts[0] <= ONSET + 6
    assert np.diff(alerts).min() > 8
    assert delays(window_rule(flags, 8, 4.0), [(hour, sentence)]) == [alerts[0] - ONSET + 1]


def test_a_surge_is_in_the_stories_of_its_topic_alone():
    """Before the onset and in other topics stories are as negative as sentences are; streams have
    the stories that were predicted for them."""
    rng = np.random.default_rng(3)
    topics = np.array(["earn", "earn", "crude", "other"])
    streams = np.array(["earn", "crude", "crude", "earn"])
    is_negative = np.arange(1000) % 10 == 0
    tuning, shown = newsrooms(topics, streams, is_negative, rng)
    assert not np.intersect1d(tuning.sentences, shown.sentences).size
    hour, sentence = shown.surges(1)[0]  # of crude, half of whose stories are of earn
    assert np.isin(sentence, shown.sentences).all()
    before = is_negative[sentence[hour < ONSET]].mean()
    after = is_negative[sentence[hour >= ONSET]].mean()
    assert before == pytest.approx(0.1, abs=0.03)
    assert after == pytest.approx((SURGE + 0.1) / 2, abs=0.03)
    assert len(shown.quiet(3000)) == 3 * 2
    assert HISTORY < ONSET


@pytest.fixture
def server() -> Iterator[tuple[str, list[int], list[dict[str, object]]]]:
    """A webhook: its address, the statuses that it will answer, and what was posted."""
    statuses: list[int] = []
    posted: list[dict[str, object]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(statuses.pop(0))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}/alerts", statuses, posted
    listening.shutdown()
    listening.server_close()


QUICK = urllib3.Retry(2, backoff_factor=0.0, status_forcelist=(503,), allowed_methods=None)


def test_an_alert_is_posted_again_until_it_is_taken(server):
    """A busy webhook is tried again with the same alert, as JSON."""
    url, statuses, posted = server
    statuses += [503, 200]
    alert = {"id": "crude-531", "headlines": ["Pétrole en baisse"]}
    assert send(url, alert, QUICK)
    assert posted == [alert, alert]


def test_an_alert_that_nobody_takes_is_told(server):
    """A refusal is not repeated, a webhook that stays busy or is away is given up."""
    url, statuses, posted = server
    statuses += [400, 503, 503, 503]
    assert not send(url, {"id": "a"}, QUICK)
    assert len(posted) == 1
    assert not send(url, {"id": "b"}, QUICK)
    assert len(posted) == 4
    assert not send("http://127.0.0.1:9/", {"id": "c"}, QUICK)


def test_sentences_are_read_in_each_form_of_the_file():
    """The publisher's zip, its text file and a CSV file give the same sentences and labels."""
    lines = "Profit fell @ 5 % .@negative\r\nMäntsälä , he said@neutral\r\n".encode("latin-1")
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("FinancialPhraseBank-v1.0/Sentences_75Agree.txt", lines)
        archive.writestr("__MACOSX/._Sentences_75Agree.txt", b"x")
    table = 'sentence,label\n"Profit fell @ 5 % .",negative\n"Mäntsälä , he said",neutral\n'
    expected = ["Profit fell @ 5 % .", "Mäntsälä , he said"], ["negative", "neutral"]
    for content in (lines, zipped.getvalue(), table.encode()):
        assert parse_phrases(content) == expected


def test_another_label_is_an_error_that_names_the_row():
    """A table of something else is not read as sentences."""
    with pytest.raises(ValueError, match="row 1: expected a sentence and negative"):
        parse_phrases(b"text,label\nhello,spam\n")
