"""From the devices' events to what is done with a canary, and the release that replaces it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from sanderling.events.schema import Loss, Slot
from sanderling.releases.update_worker import in_rollout
from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.evaluation.ope import canary as test
from sanderling_trainer.jobs.canary import compare_canary, renumbered
from sanderling_trainer.policy import checkpoint
from tests.support.fakes import EventFactory, FakeClock
from tests.support.nights import Shop

pytestmark = pytest.mark.lab

PERCENT = 40
INSTALLS = [f"{number:032x}" for number in range(1, 901)]
CANARY, ACTIVE = 2, 1
SLATES, SLOTS = 12, 3
RATE = 0.3


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A shop's checkpoint of release 1, and one of release 2 that was learned from it."""
    shop = Shop(tmp_path_factory.mktemp("shop"))
    settings = json.loads((shop.active / "config.json").read_text())
    shutil.copytree(shop.active, shop.folder / "canary")
    settings |= {"release": CANARY, "parent": ACTIVE}
    (shop.folder / "canary" / "config.json").write_text(json.dumps(settings))
    return shop.folder


@pytest.fixture
def shop(checkpoints, tmp_path):
    """A copy of the shop, without events."""
    shutil.copytree(checkpoints, tmp_path / "shop", dirs_exist_ok=True)
    return Shop(tmp_path / "shop")


def takes_part(install):
    return in_rollout(install, CANARY, PERCENT)


def events_of(install, rate, clock, release, first=1, slates=SLATES):
    """Return decisions of a release with judged slots, of which a share is clicked."""
    make = EventFactory(install, int(install, 16) * 10**9 + 10**8 * release + 100 * first)
    rng = np.random.default_rng([int(install, 16), release, first])
    seq = first
    events = []
    for _ in range(slates):
        slate = [Slot(f"i{rank}", rank, False, 0.9, 0.9) for rank in range(SLOTS)]
        common = {"clock": type(make.observation().clock)(clock.wall_ms(), 5_000, "b" * 32)}
        decision = make.decision(seq=seq, release=release, slate=slate, **common)
        events.append(decision)
        for slot in range(SLOTS):
            seq += 1
            value = 1.0 if rng.random() < rate else -1.0
            fields = {"seq": seq, "updates_state": False, **common}
            events.append(make.outcome(decision, slot, value, **fields))
        seq += 1
    return events


def fleet(shop, rate, installs=INSTALLS):
    """Upload what a fleet did, of which the canary's part clicks at a given rate."""
    events = []
    for install in installs:
        release, own = (CANARY, rate) if takes_part(install) else (ACTIVE, RATE)
        events += events_of(install, own, shop.clock, release)
    shop.upload(events)


def compared(shop):
    return compare_canary(str(shop.store.root), shop.folder / "canary", PERCENT)


@pytest.mark.parametrize(
    ("rate", "action", "status"),
    [(0.45, test.PROMOTE, 0), (0.15, test.ROLL_BACK, 3), (RATE, test.CONTINUE, 4)],
)
def test_the_command_says_what_to_do(shop, shell, rate, action, status):
    """A canary that is clicked half as often again is promoted, half as often rolled back, and one
    that is alike goes on; the exit status says so to a script."""
    fleet(shop, rate)
    arguments = ["--events", shop.store.root, "--checkpoint", shop.folder / "canary"]
    found = shell.json("release", "canary", *arguments, "--percent", PERCENT, status=status)
    assert (found["action"], found["look"]) == (action, 1)
    assert (found["release"], found["active"]) == (CANARY, ACTIVE)
    assert found["canary"]["low"] < rate < found["canary"]["high"]
    assert found["serving"]["low"] < RATE < found["serving"]["high"]
    assert found["canary"]["installs"] == sum(map(takes_part, INSTALLS))
    assert found["canary"]["installs"] + found["serving"]["installs"] == len(INSTALLS)
    status_again, out, _ = shell.run("release", "canary", *arguments, "--percent", PERCENT)
    assert (status_again, f"{action}: " in out) == (status, True)


def test_only_a_fair_comparison_counts(shop):
    """Not: what the active release did before, what installs of the roll-out did with it, what
    others did with the canary, other releases, and installs that cannot be trusted."""
    fleet(shop, RATE)
    fair = compared(shop)
    late = len(INSTALLS)
    inside = [install for install in INSTALLS if takes_part(install)]
    outside = [install for install in INSTALLS if not takes_part(install)]
    after = SLATES * (SLOTS + 1) + 1
    past = FakeClock(shop.clock.wall_ms() - 3 * DAY * 1000)
    shop.upload(
        [
            *events_of(outside[0], 1.0, past, ACTIVE, after),
            *events_of(inside[0], 1.0, shop.clock, ACTIVE, after),
            *events_of(outside[1], 1.0, shop.clock, CANARY, after),
            *events_of(outside[2], 1.0, shop.clock, 7, after),
            *events_of(f"{late + 1:032x}", 1.0, shop.clock, ACTIVE, 2),
            *events_of(f"{late + 2:032x}", 1.0, shop.clock, ACTIVE, 1),
            *events_of(f"{late + 2:032x}", 0.0, shop.clock, ACTIVE, 2),
        ]
    )
    assert compared(shop) == fair


def test_the_days_since_the_canary_are_the_looks(shop):
    """Two days later it is the third look, and bounds of the same events are wider."""
    fleet(shop, RATE)
    first = compared(shop)
    install = next(install for install in INSTALLS if not takes_part(install))
    shop.clock.advance(2 * DAY)
    shop.upload(events_of(install, RATE, shop.clock, 7, SLATES * (SLOTS + 1) + 1))
    third = compared(shop)
    assert (first.look, third.look) == (1, 1)
    shop.upload(events_of(install, RATE, shop.clock, ACTIVE, 2 * (SLATES * (SLOTS + 1)) + 1))
    third = compared(shop)
    assert third.look == 3
    assert third.decision.canary.low < first.decision.canary.low


def test_one_install_counts_for_no_more_than_others(shop):
    """An install that sends a hundred times as much moves its rate no more than any other."""
    fleet(shop, RATE)
    before = compared(shop).decision.active
    loud = next(install for install in INSTALLS if not takes_part(install))
    shop.upload(
        events_of(loud, 1.0, shop.clock, ACTIVE, SLATES * (SLOTS + 1) + 1, slates=100 * SLATES)
    )
    after = compared(shop).decision.active
    assert after.value - before.value < 2.0 / len(INSTALLS)


def test_a_canary_that_nobody_has_yet_goes_on(shop, shell):
    """Without a decision of the canary nothing is decided; a missing store is one line."""
    installs = [install for install in INSTALLS[:50] if not takes_part(install)]
    fleet(shop, RATE, installs)
    report = compared(shop)
    assert (report.decision.action, report.look) == (test.CONTINUE, 1)
    assert report.installs == (0, len(installs))
    arguments = ["--events", shop.folder / "none", "--checkpoint", shop.folder / "canary"]
    status, _, err = shell.run("release", "canary", *arguments, "--percent", 5)
    assert status == 1
    assert "none: expected the folder that `sanderling collect` writes to" in err


def test_the_active_policy_is_released_again_above_the_canary(shop, shell):
    """Its copy differs in its number and in what was before it alone, a second call changes
    nothing, and the next night goes on from it."""
    folder = shop.folder
    arguments = ["--checkpoint", folder / "active", "--above", folder / "canary"]
    made = shell.json("release", "again", *arguments, "--out", folder / "again")
    assert made["release"] == 3
    before, after = checkpoint.load(folder / "active"), checkpoint.load(folder / "again")
    assert (after.metadata.release, after.metadata.parent) == (3, 1)
    assert after.metadata.explorations == {"1": before.config.exploration()}
    for name, tensor in before.network.state_dict().items():
        assert (after.network.state_dict()[name] == tensor).all(), name
    assert renumbered(folder / "active", folder / "canary", folder / "again") == 3
    with pytest.raises(FileExistsError, match="choose another --out"):
        renumbered(folder / "active", folder / "canary", folder / "active")
    assert not list(folder.glob(".*"))

    shop.day()
    assert shop.night("next", active=folder / "again").release == 4


def test_lost_events_do_not_stop_a_comparison(shop):
    """An install that declares what it lost still counts."""
    fleet(shop, RATE)
    fair = compared(shop)
    install = INSTALLS[0]
    seq = SLATES * (SLOTS + 1) + 2
    clock = EventFactory().observation().clock
    shop.upload([Loss(f"{10**20:032x}", install, seq, clock, "full", outcomes=1)])
    assert compared(shop).installs == fair.installs
