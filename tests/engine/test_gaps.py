"""An event that updated a user's state and was lost leaves a gap. The device then resets the
state, so that the lab can rebuild all that follows."""

from __future__ import annotations

import apsw
import pytest

from sanderling import Engine
from sanderling.events import schema as wire
from sanderling.events.schema import Decision, Loss, Observation, Outcome, StateReset
from sanderling.outbox import write_queue
from sanderling.upload.transport import Response
from sanderling.users.user_states import MAX_HISTORY
from tests.support.bundles import write_bundle
from tests.support.engines import outbox_of, profiles_of, scorer_of
from tests.support.fakes import FakeClock, FakeEntropy, FakeTransport, verdicts
from tests.support.naive import rebuildable

QUEUED = 200
USERS = [f"user {number}" for number in range(5)]


class Device:
    """An engine without threads, and a collector that takes its events while it is online,
    unless it `refuses` them."""

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
        """Let each user look at a slate and like what stands first in every second device."""
        for number in range(rounds):
            for user in users:
                slate = self.engine.recommend(user, k=5)
                self.engine.reward_all(
                    slate, {slate[0]: 1.0 if number % 2 else -1.0, slate[1]: -1.0}
                )
                self.clock.advance(60)

    def observe(self) -> None:
        """Let the first user do something that is stored and not sent yet."""
        self.online = False
        self.engine.observe(USERS[0], "item-7", "view")
        self.engine.step()
        self.online = True

    def drop(self, user: str) -> None:
        """Let a user do something that finds the queue full."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(write_queue, "MAX_QUEUED", 0)
            self.engine.observe(user, "item-1", "view")

    def send(self) -> None:
        self.clock.advance(3600)
        self.engine.step()
        while self.engine.counters()["outbox"].pending:
            self.clock.advance(self.engine.step())

    def by_number(self) -> list[wire.Event]:
        """Return what the collector has, in the order of the numbers."""
        return sorted(self.received.values(), key=lambda event: event.seq)

    def database(self) -> apsw.Connection:
        return apsw.Connection(str(self.folder / "state" / "outbox.db"))


@pytest.fixture
def open_device(tmp_path):
    devices: list[Device] = []

    def build(**options) -> Device:
        devices.append(Device(tmp_path, **options))
        return devices[-1]

    yield build
    for each in devices:
        each.engine.close()


def since(device: Device, seq: int) -> list[str]:
    """Return the ids of the decisions that the collector has, after a number."""
    later = [event for event in device.by_number() if event.seq > seq]
    return [event.id for event in later if isinstance(event, Decision)]


def missing(received: list[wire.Event]) -> int:
    declared = [event for event in received if isinstance(event, Loss)]
    named = {seq for loss in declared for seq in loss.lost_seqs or ()}
    counted = sum(
        loss.decisions + loss.outcomes + loss.observations - len(loss.lost_seqs or ())
        for loss in declared
    )
    return received[-1].seq - len({event.seq for event in received} | named) - counted


def test_decisions_that_survive_shedding_can_be_rebuilt(open_device):
    """After 3,000 events in 1 MiB the lab can rebuild the state of each decision that arrived,
    and of all later ones: a reward that updated a state stayed, as an observation, when its
    decision was shed."""
    device = open_device(outbox_bytes=2**20)
    device.online = False
    device.use(200)
    assert device.engine.counters()["outbox"].lost["full"] > 500
    device.online = True
    device.send()
    last = device.by_number()[-1].seq
    device.use(20)
    device.send()
    received = device.by_number()
    kept = {event.id for event in received if isinstance(event, Decision)}
    assert rebuildable(received) == kept
    assert len(since(device, last)) == 100
    assert {event.decision for event in received if isinstance(event, Outcome)} <= kept
    assert missing(received) == 0


def test_a_state_is_reset_when_observations_are_shed(open_device):
    """Where observations fill the device some are shed; the next decision starts from a reset
    state."""
    device = open_device(outbox_bytes=2**18)
    device.online = False
    device.use(1)
    for number in range(3000):
        device.engine.observe(USERS[number % 5], f"item-{number % 50}", "view")
        if number % 20 == 0:
            device.engine.step()
    assert device.engine.counters()["outbox"].lost["full"] > 500
    device.use(3)
    device.online = True
    device.send()
    last = device.by_number()[-1].seq
    device.use(5)
    device.send()
    received = device.by_number()
    assert {event.user for event in received if isinstance(event, StateReset)} == {
        event.user for event in received if isinstance(event, Decision)
    }
    assert set(since(device, last)) <= rebuildable(received)
    assert all(
        len(event.steps) == MAX_HISTORY for event in received if isinstance(event, StateReset)
    )
    assert missing(received) == 0


def test_shed_state_resets_are_declared(open_device):
    """Each number of a full device arrives or is declared, also where state resets are shed."""
    device = open_device(outbox_bytes=2**17)
    device.online = False
    for number in range(400):
        user = USERS[number % 5]
        device.engine.observe(user, f"item-{number % 50}", "view")
        device.engine.recommend(user, k=1)
        device.drop(user)
        device.engine.step()
    device.online = True
    device.send()
    received = device.by_number()
    assert device.engine.counters()["outbox"].lost["full"] > 100
    assert missing(received) == 0


def test_outcomes_that_must_stay_do_not_keep_observations_from_being_shed(open_device):
    """Observations are shed, and new events taken, though outcomes that must stay are heavier."""
    device = open_device(outbox_bytes=2**18)
    slates = [device.engine.recommend(user, k=5) for user in USERS for _ in range(20)]
    device.send()
    device.online = False
    for slate in slates:
        device.engine.reward_all(slate, {slate[slot]: -1.0 for slot in range(3)})
    for number in range(600):
        device.engine.observe(USERS[number % 5], f"item-{number % 50}", "view")
        device.engine.step()
    slate = device.engine.recommend(USERS[0], k=5)
    assert device.engine.reward(slate, slate[0], 1.0)
    device.online = True
    device.send()
    assert missing(device.by_number()) == 0


def test_outcomes_that_updated_no_state_leave_no_gap(open_device):
    """A lost reward that had not updated the state does not reset it."""
    device = open_device()
    device.use(2)
    device.send()
    device.online = False
    slate = device.engine.recommend(USERS[0], k=5)
    device.engine.reward(slate, slate[0], -1.0)
    device.online, device.refuses = True, Outcome
    device.send()
    device.refuses = ()
    device.use(1)
    device.send()
    assert not any(isinstance(event, StateReset) for event in device.by_number())


def test_a_gap_that_appears_while_another_is_closed_is_remembered(open_device):
    """A loss after a state reset was queued, and before it is written, is marked in the file
    too."""
    device = open_device()
    lose_by_damage(device)
    slate = device.engine.recommend(USERS[0], k=5)
    device.drop(USERS[0])
    device.engine.step()
    assert list(device.outbox.states("gap:")) == [f"gap:{slate.pseudonym}"]


def test_marks_outlive_the_states_of_other_users(open_device):
    """However many states a small device sheds, the mark of a gap stays in the file."""
    device = open_device(outbox_bytes=2**16)
    lose_by_damage(device)
    [mark] = device.outbox.states("gap:")
    device.online = False
    for number in range(300):
        device.engine.recommend(f"another {number}", k=5)
        device.engine.step()
    assert device.engine.counters()["outbox"].lost["full"]
    assert mark in device.outbox.states("gap:")


@pytest.mark.parametrize("shut", ["closed", "full"])
def test_no_gap_is_closed_while_nothing_can_be_queued(open_device, shut, monkeypatch):
    """With a closed outbox or a full queue, a decision does not reset the user's state."""
    device = open_device()
    device.use(1)
    lose_by_damage(device)
    if shut == "closed":
        device.outbox.close()
    else:
        monkeypatch.setattr(write_queue, "MAX_QUEUED", 0)
    pseudonym = device.engine.recommend(USERS[0]).pseudonym
    assert not device.outbox.clear_gap(pseudonym)
    now_ms = device.clock.wall_ms()
    user = profiles_of(device.engine).snapshot(USERS[0], now_ms, scorer_of(device.engine))
    assert user.state.events == 1
    monkeypatch.undo()
    device.engine.close()
    device.open()
    assert device.outbox.clear_gap(pseudonym)


def lose_by_damage(device: Device) -> None:
    device.observe()
    damage = "UPDATE event SET line = CAST(replace(CAST(line AS TEXT), 'item-7', 'item-8') AS BLOB)"
    device.database().execute(damage)
    device.send()


def lose_by_refusal(device: Device) -> None:
    device.observe()
    device.refuses = Observation
    device.send()
    device.refuses = ()


def lose_by_a_full_queue(device: Device) -> None:
    for _ in range(QUEUED + 1):
        device.engine.observe(USERS[0], "item-7", "view")
    device.send()


@pytest.mark.parametrize("lose", [lose_by_damage, lose_by_refusal, lose_by_a_full_queue])
@pytest.mark.parametrize("restarted", [False, True])
def test_the_next_decision_closes_the_gap(open_device, lose, restarted, monkeypatch):
    """However the event was lost, the lab can rebuild each later decision, also after a restart."""
    monkeypatch.setattr(write_queue, "MAX_QUEUED", QUEUED)
    device = open_device()
    device.use(2)
    device.send()
    lose(device)
    last = device.by_number()[-1].seq
    if restarted:
        device.engine.close()
        device.open()
    device.use(3)
    device.send()
    received = device.by_number()
    assert set(since(device, last)) <= rebuildable(received)
    assert len(since(device, last)) == 15
    assert len({event.user for event in received if isinstance(event, StateReset)}) == 1


def test_a_gap_is_closed_by_one_state_reset(open_device):
    """One state reset closes a gap, and no mark of it is left."""
    device = open_device()
    lose_by_damage(device)
    device.use(5)
    device.engine.close()
    device.open()
    device.use(2)
    device.send()
    assert sum(isinstance(event, StateReset) for event in device.by_number()) == 1
    assert device.outbox.states("gap:") == {}


def test_other_users_keep_their_states(open_device):
    """The state of a user of whom nothing was lost is not reset."""
    device = open_device()
    lose_by_damage(device)
    device.use(3, USERS[1:])
    device.send()
    assert not any(isinstance(event, StateReset) for event in device.by_number())


def test_a_state_reset_fits_into_a_line(open_device):
    """A state made of the longest ids is reset to as many of them as one line holds."""
    device = open_device()
    for number in range(300):
        device.engine.observe(USERS[0], f"{number:0>3}" + "€" * 509, "view")
    lose_by_damage(device)
    device.use(1, USERS[:1])
    device.send()
    [reset] = [event for event in device.by_number() if isinstance(event, StateReset)]
    assert 10 < len(reset.steps) < 64
    assert set(since(device, reset.seq)) <= rebuildable(device.by_number())


def test_forgetting_a_user_deletes_the_mark(open_device):
    """A user who is forgotten between a loss and the next decision leaves no mark, and needs no
    reset."""
    device = open_device()
    lose_by_damage(device)
    [mark] = device.outbox.states("gap:")
    device.engine.forget_user(USERS[0])
    assert device.outbox.states("gap:") == {}
    for path in (device.folder / "state").rglob("*"):
        assert path.is_dir() or mark.removeprefix("gap:").encode() not in path.read_bytes()
    device.use(1)
    device.send()
    assert not any(isinstance(event, StateReset) for event in device.by_number())
