"""What moved a user's state and was lost leaves a gap, which the device mends: the lab can rebuild what follows."""

from __future__ import annotations

import apsw
import pytest

from sanderling import Engine
from sanderling.events import schema as wire
from sanderling.events.schema import Decision, Loss, Observation, Outcome, StateReset
from sanderling.outbox import outbox
from sanderling.upload.transport import Response
from sanderling.users.user_states import MAX_HISTORY
from tests.support.bundles import write_bundle
from tests.support.engines import outbox_of, profiles_of, scorer_of
from tests.support.fakes import FakeClock, FakeEntropy, FakeTransport, verdicts
from tests.support.naive import rebuildable

QUEUED = 200
USERS = [f"user {number}" for number in range(5)]


class Device:
    """An engine without threads, and a collector that takes its events while it is online, unless it `refuses` them."""

    def __init__(self, folder, **options) -> None:
        write_bundle(folder / "bundle")
        self.folder, self.clock, self.online, self.refuses = folder, FakeClock(), True, ()
        self.received: dict[str, wire.Event] = {}
        self.options = {
            "transport": FakeTransport(self.answer),
            "background": False,
            "clock": self.clock,
        } | options
        self.entropy = FakeEntropy()
        self.open()

    def open(self) -> None:
        self.engine = Engine.open(
            self.folder / "bundle", self.folder / "state", entropy=self.entropy, **self.options
        )
        self.outbox = outbox_of(self.engine)

    def answer(self, events: list[wire.Event]) -> Response:
        if not self.online:
            raise ConnectionRefusedError
        if any(isinstance(event, self.refuses) for event in events):
            return verdicts(events, "rejected")
        self.received.update({event.id: event for event in events})
        return verdicts(events, "ok")

    def use(self, rounds: int, users: list[str] = USERS) -> None:
        """Let each user look at a slate and like what stands first in every second one."""
        for number in range(rounds):
            for user in users:
                slate = self.engine.recommend(user, k=5)
                self.engine.reward_all(
                    slate, {slate[0]: 1.0 if number % 2 else -1.0, slate[1]: -1.0}
                )
                self.clock.advance(60)

    def observe(self) -> None:
        """Let the first user do something of which the collector has not heard yet."""
        self.online = False
        self.engine.observe(USERS[0], "item-7", "view")
        self.engine.step()
        self.online = True

    def send(self) -> None:
        self.clock.advance(3600)
        self.engine.step()
        while self.engine.counters()["outbox"].pending:
            self.clock.advance(self.engine.step())

    def told(self) -> list[wire.Event]:
        """Return what the collector has, by number."""
        return sorted(self.received.values(), key=lambda event: event.seq)

    def database(self) -> apsw.Connection:
        return apsw.Connection(str(self.folder / "state" / "outbox.db"))


@pytest.fixture
def device(tmp_path):
    made: list[Device] = []

    def build(**options) -> Device:
        made.append(Device(tmp_path, **options))
        return made[-1]

    yield build
    for each in made:
        each.engine.close()


def since(device: Device, seq: int) -> list[str]:
    return [event.id for event in device.told() if isinstance(event, Decision) and event.seq > seq]


def missing(told: list[wire.Event]) -> int:
    declared = [event for event in told if isinstance(event, Loss)]
    named = {number for loss in declared for number in loss.lost_seqs or ()}
    counted = sum(
        loss.decisions + loss.outcomes + loss.observations - len(loss.lost_seqs or ())
        for loss in declared
    )
    return told[-1].seq - len({event.seq for event in told} | named) - counted


def test_what_a_full_device_kept_can_be_learned_from(device):
    """After 3,000 events in 1 MiB the lab can rebuild the state of each decision that came through, and of all later
    ones: what moved a state stayed, as an observation, when its decision went."""
    one = device(outbox_bytes=2**20)
    one.online = False
    one.use(200)
    assert one.engine.counters()["outbox"].lost["full"] > 500
    one.online = True
    one.send()
    last = one.told()[-1].seq
    one.use(20)
    one.send()
    told = one.told()
    kept = {event.id for event in told if isinstance(event, Decision)}
    assert rebuildable(told) == kept
    assert len(since(one, last)) == 100
    assert {event.decision for event in told if isinstance(event, Outcome)} <= kept
    assert missing(told) == 0


def test_when_behaviour_itself_goes_the_state_begins_anew(device):
    """Where observations fill the device some of them go; the next decision says what its state was made of."""
    one = device(outbox_bytes=2**18)
    one.online = False
    one.use(1)
    for number in range(3000):
        one.engine.observe(USERS[number % 5], f"item-{number % 50}", "view")
        if number % 20 == 0:
            one.engine.step()
    assert one.engine.counters()["outbox"].lost["full"] > 500
    one.use(3)
    one.online = True
    one.send()
    last = one.told()[-1].seq
    one.use(5)
    one.send()
    told = one.told()
    assert {event.user for event in told if isinstance(event, StateReset)} == {
        event.user for event in told if isinstance(event, Decision)
    }
    assert set(since(one, last)) <= rebuildable(told)
    assert all(len(event.steps) == MAX_HISTORY for event in told if isinstance(event, StateReset))
    assert missing(told) == 0


def test_restarts_that_are_shed_are_declared(device):
    """Each number of a crowded device is there or declared, though restarts are among what went (P10)."""
    one = device(outbox_bytes=2**17)
    one.online = False
    for number in range(400):
        user = USERS[number % 5]
        one.engine.observe(user, f"item-{number % 50}", "view")
        one.outbox._store.note_gaps({one.engine.recommend(user, k=1).pseudonym})
        one.engine.step()
    one.online = True
    one.send()
    told = one.told()
    assert one.engine.counters()["outbox"].lost["full"] > 100
    assert missing(told) == 0


def test_outcomes_that_cannot_go_do_not_keep_behaviour_in_their_place(device):
    """Where what may not go is heavier than all behaviour, behaviour goes all the same, and new events are taken."""
    one = device(outbox_bytes=2**18)
    slates = [one.engine.recommend(user, k=5) for user in USERS for _ in range(20)]
    one.send()
    one.online = False
    for slate in slates:
        one.engine.reward_all(slate, {slate[slot]: -1.0 for slot in range(3)})
    for number in range(600):
        one.engine.observe(USERS[number % 5], f"item-{number % 50}", "view")
        one.engine.step()
    slate = one.engine.recommend(USERS[0], k=5)
    assert one.engine.reward(slate, slate[0], 1.0)
    one.online = True
    one.send()
    assert missing(one.told()) == 0


def test_outcomes_that_moved_nothing_leave_no_gap(device):
    """A reward that is lost and had moved no state is no reason to begin one anew."""
    one = device()
    one.use(2)
    one.send()
    one.online = False
    slate = one.engine.recommend(USERS[0], k=5)
    one.engine.reward(slate, slate[0], -1.0)
    one.online, one.refuses = True, Outcome
    one.send()
    one.refuses = ()
    one.use(1)
    one.send()
    assert not any(isinstance(event, StateReset) for event in one.told())


def test_a_gap_that_comes_while_another_is_mended_is_not_forgotten(device):
    """A loss after a restart was queued, and before it is written, is remembered on the disk too."""
    one = device()
    lose_by_rot(one)
    slate = one.engine.recommend(USERS[0], k=5)
    one.outbox._gap(
        [profiles_of(one.engine)._event_factory.observation(slate.pseudonym, "item-1", "view")]
    )
    one.engine.step()
    assert list(one.outbox.states("gap:")) == [f"gap:{slate.pseudonym}"]


def test_marks_outlive_the_states_of_others(device):
    """However many states a small device sheds, the mark of a user who stays is there after a restart of the app."""
    one = device(outbox_bytes=2**16)
    lose_by_rot(one)
    [mark] = one.outbox.states("gap:")
    one.online = False
    for number in range(300):
        one.engine.recommend(f"another {number}", k=5)
        one.engine.step()
    assert one.engine.counters()["outbox"].lost["full"]
    assert mark in one.outbox.states("gap:")


@pytest.mark.parametrize("shut", ["closed", "crowded"])
def test_while_nothing_can_be_told_nothing_is_mended(device, shut, monkeypatch):
    """With a closed outbox, or a full queue, a decision does not build the user's state anew each time."""
    one = device()
    one.use(1)
    lose_by_rot(one)
    if shut == "closed":
        one.outbox.close()
    else:
        monkeypatch.setattr(outbox, "QUEUE_EVENTS", 0)
    pseudonym = one.engine.recommend(USERS[0]).pseudonym
    assert pseudonym in one.outbox._store.gaps
    assert profiles_of(one.engine)._states.get(USERS[0], scorer_of(one.engine)).events == 1


def lose_by_rot(one: Device) -> None:
    one.observe()
    rot = "UPDATE event SET line = CAST(replace(CAST(line AS TEXT), 'item-7', 'item-8') AS BLOB)"
    one.database().execute(rot)
    one.send()


def lose_by_refusal(one: Device) -> None:
    one.observe()
    one.refuses = Observation
    one.send()
    one.refuses = ()


def lose_by_a_full_queue(one: Device) -> None:
    for _ in range(QUEUED + 1):
        one.engine.observe(USERS[0], "item-7", "view")
    one.send()


@pytest.mark.parametrize("lose", [lose_by_rot, lose_by_refusal, lose_by_a_full_queue])
@pytest.mark.parametrize("restarted", [False, True])
def test_the_next_decision_mends_the_gap(device, lose, restarted, monkeypatch):
    """However it was lost, each later decision of the user can be learned from, also after a restart of the app."""
    monkeypatch.setattr(outbox, "QUEUE_EVENTS", QUEUED)
    one = device()
    one.use(2)
    one.send()
    lose(one)
    last = one.told()[-1].seq
    if restarted:
        one.engine.close()
        one.open()
    one.use(3)
    one.send()
    told = one.told()
    assert set(since(one, last)) <= rebuildable(told)
    assert len(since(one, last)) == 15
    assert len({event.user for event in told if isinstance(event, StateReset)}) == 1


def test_a_mended_gap_is_told_once(device):
    """One restart mends a gap: the state's later decisions are told as before, and nothing of the mark is left."""
    one = device()
    lose_by_rot(one)
    one.use(5)
    one.engine.close()
    one.open()
    one.use(2)
    one.send()
    assert sum(isinstance(event, StateReset) for event in one.told()) == 1
    assert one.outbox.states("gap:") == {}


def test_nobody_else_begins_anew(device):
    """A user of whom nothing was lost goes on as before."""
    one = device()
    lose_by_rot(one)
    one.use(3, USERS[1:])
    one.send()
    assert not any(isinstance(event, StateReset) for event in one.told())


def test_a_restart_fits_into_a_line(device):
    """A state made of the longest names begins anew from so many of them as a line holds."""
    one = device()
    for number in range(300):
        one.engine.observe(USERS[0], f"{number:0>3}" + "€" * 509, "view")
    lose_by_rot(one)
    one.use(1, USERS[:1])
    one.send()
    [restart] = [event for event in one.told() if isinstance(event, StateReset)]
    assert 10 < len(restart.steps) < 64
    assert set(since(one, restart.seq)) <= rebuildable(one.told())


def test_forgetting_takes_the_mark_along(device):
    """A user who is forgotten between a loss and the next decision leaves no mark, and comes back without a restart."""
    one = device()
    lose_by_rot(one)
    [mark] = one.outbox.states("gap:")
    one.engine.forget_user(USERS[0])
    assert one.outbox.states("gap:") == {}
    for path in (one.folder / "state").rglob("*"):
        assert path.is_dir() or mark.removeprefix("gap:").encode() not in path.read_bytes()
    one.use(1)
    one.send()
    assert not any(isinstance(event, StateReset) for event in one.told())
