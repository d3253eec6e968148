"""How far one install can move its item: top tens of honest users after a night's retraining.

Expected: 5 % of all events by one install, in any form that the wire allows, move its item by at
most one point of the top tens that contain it. Without bounds some forms move it by tens of points.

Protocol (`trusting/`): a fleet of 295 phones and 5 kiosks, 500 items and 4,000 decisions with known
tastes, as wire events that pass through the log's reader. Retraining counts the week's popularity,
continues the warm start on all histories, and learns from the decisions. An attack is added for an
item that is in no top ten and for one that is in 1 % of them. `before` is the same without bounds
and without the filter of implausible decisions. Each arm is compared with its own run without the
attack, the worse item counts. What the bounds cost honest fleets is measured on popularity alone:
fleets of several spreads of activity, with the correlation of the features and the nDCG of next
week's likes.

    python -m bench trust [--seeds 1] [--share 0.05]
"""

from __future__ import annotations

import argparse
import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from bench.trusting.attacks import ATTACKS, Attack, Attacker
from bench.trusting.fleet import (
    CONFIG,
    FIRST_DAY,
    IDS,
    ITEMS,
    KINDS,
    METADATA,
    NIGHT_DAYS,
    Fleet,
    best_items,
    make_fleet,
)
from bench.trusting.honest import harm
from sanderling.events.schema import Event
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.event_log.deduplication import ReceivedEvent
from sanderling_trainer.event_log.examples import Examples, examples_of
from sanderling_trainer.event_log.reader import build_log
from sanderling_trainer.jobs.learner import learn
from sanderling_trainer.jobs.trust import believed
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.context import TrainingContext

NIGHT = replace(CONFIG, epochs=2, learning_rate=CONFIG.learning_rate / 4, supervision=0.0)
RECEIVED_MS = 1000 * DAY * (FIRST_DAY + NIGHT_DAYS)
TOP = 10
EDGE = 0.01
"""Share of top tens that the second target has without an attack, about."""


def run(arguments: list[str]) -> dict[str, Any]:
    """Print and return by how many points each attack moves its item, before and after."""
    parser = argparse.ArgumentParser(prog="bench trust")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.05)
    options = parser.parse_args(arguments)

    rows: dict[str, Counter[str]] = {}
    for seed in range(options.seeds):
        fleet = make_fleet(seed)
        targets = target_items(fleet, night(fleet, [], bounded=True))
        for bounded in (False, True):
            base = top_ten_shares(fleet, night(fleet, [], bounded))
            for row, (name, attack) in _cases(targets):
                sent = attack_events(fleet, attack, row, options.share, seed)
                shares = top_ten_shares(fleet, night(fleet, sent, bounded))
                arm = "after" if bounded else "before"
                moved = rows.setdefault(name, Counter(before=-1e9, after=-1e9))
                moved[arm] = max(moved[arm], 100.0 * float(shares[row] - base[row]))
                print(f"{arm:6} {moved[arm]:7.2f}  {name}", flush=True)

    result = {"moved_points": {name: dict(moved) for name, moved in rows.items()}, "harm": harm()}
    for name, moved in rows.items():
        print(f"| {name} | {moved['before']:+.1f} | {moved['after']:+.1f} |")
    for case in result["harm"]:
        print(case)
    return result


def _cases(targets: Sequence[int]) -> list[tuple[int, tuple[str, Attack]]]:
    return [(row, case) for row in targets for case in ATTACKS.items()]


def target_items(fleet: Fleet, network: PolicyNetwork) -> list[int]:
    """Return an item that is in no top ten and has the median of the likes of such, and one that is
    in about 1 % of them.
    """
    shares = top_ten_shares(fleet, network)
    likes = np.bincount(np.concatenate([user.items for user in fleet.users]), minlength=ITEMS)
    never = np.flatnonzero(shares == 0.0)
    middle = never[np.argsort(likes[never], kind="stable")][len(never) // 2]
    return [int(middle), int(np.abs(shares - EDGE).argmin())]


def attack_events(fleet: Fleet, attack: Attack, row: int, share: float, seed: int) -> list[Event]:
    """Return so many events of one install that they are `share` of all."""
    count = round(share / (1.0 - share) * len(fleet.events))
    return list(islice(attack(Attacker(fleet, row, seed)), count))


def night(fleet: Fleet, attack: Sequence[Event], bounded: bool) -> PolicyNetwork:
    """Return the network after a night's retraining on the fleet's events and an attack's."""
    examples = read([*fleet.events, *attack])
    if bounded:
        examples = believed(examples, METADATA, CONFIG)
    else:
        histories = [replace(history, install=-1) for history in examples.histories]
        examples = replace(examples, histories=histories)

    network = copy.deepcopy(fleet.network)
    counts = PopularityHistory.of_histories(examples.histories, ITEMS)
    popularity = fleet.popularity.plus(counts)
    network.set_popularity_day(popularity, FIRST_DAY + NIGHT_DAYS)
    histories = [*examples.histories, *fleet.past]
    context = TrainingContext(network, histories, NIGHT, METADATA.repeats, popularity)
    learn(context, examples.decisions)
    return network


def read(events: Sequence[Event]) -> Examples:
    """Return the examples of events that all arrived when the week ended."""
    received = [ReceivedEvent(event, b"", RECEIVED_MS, RECEIVED_MS, 1) for event in events]
    return examples_of(build_log(received), IDS, KINDS, text_dim=2)


def top_ten_shares(fleet: Fleet, network: PolicyNetwork) -> np.ndarray:
    """Return for each item the share of honest users' top tens that contain it, float64 [n].

    Users are those of the fleet and those of the log from before.
    """
    users = [(user.items, user.kinds) for user in fleet.users]
    users += [(each.items.tolist(), each.kinds.tolist()) for each in fleet.past]
    shown = np.concatenate([best_items(network, *user, TOP) for user in users])
    return np.bincount(shown, minlength=ITEMS) / len(users)
