"""Writes events-1.jsonl, the golden file of wire format 1. Run it only for a new format."""

from pathlib import Path

from sanderling.events import codec
from sanderling.events import schema as wire
from tests.support.fakes import EventFactory


def lines() -> list[bytes]:
    """Return an event of each type as a line, but for `state_reset`."""
    make = EventFactory(install="0123456789abcdef" * 2)
    clicked = make.decision(seq=1)
    unseen = make.decision(seq=2, context="AAAAAA==", pass_probability=0.25)
    loss = wire.Loss("e" * 32, make.install, 6, clicked.clock, "full", decisions=2, outcomes=1)
    events = [
        clicked,
        unseen,
        make.outcome(clicked, slot=0, value=1.0, seq=3),
        make.outcome(clicked, slot=1, value=-1.0, seq=4, kind="skip", updates_state=True),
        make.observation(seq=5, item="größe 42 ☂"),
        loss,
        make.decision(
            seq=7,
            slate=[
                wire.Slot("red", 0, False, 0.8772, 0.8772),
                wire.Slot("new", 4, True, 0.01, 0.01, newcomer=True),
            ],
            epsilon=0.0721,
            pool=3,
            caps={"colour": 2},
            pool_items=["red", "blue", "green"],
            newcomers=3,
            newcomer_rate=0.03,
        ),
    ]
    return [codec.encode(event) for event in events]


if __name__ == "__main__":
    Path(__file__).with_name("events-1.jsonl").write_bytes(
        b"".join(line + b"\n" for line in lines())
    )
