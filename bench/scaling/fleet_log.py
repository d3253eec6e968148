"""A store of decisions of ten slots by any number of installs, and a checkpoint to retrain.

Installs have one user and 40 decisions on average (geometric); a slate explores with ε = .1 in a
pool of 50 items, which starts at a random place of the catalog. Two slots of a slate are clicked
on average and update the state, up to six are skipped; each decision follows an observation.
The log is not meant to be learned from: only its size and its form are those of a real one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from sanderling.bundle.manifest import Exploration
from sanderling.events import codec
from sanderling.events.schema import ClockReading, Decision, Event, Observation, Outcome, Slot
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling.exploration import schemes
from sanderling.runtime.clock import SystemClock
from sanderling_trainer.data.histories import policy_kinds
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.data.tables import Catalog
from sanderling_trainer.event_log import segment_format
from sanderling_trainer.policy import checkpoint
from sanderling_trainer.policy.checkpoint import Checkpoint, CheckpointMetadata
from sanderling_trainer.policy.exposure import Exposure
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork

SLOTS, SEEN, CLICKS = 10, 6, 0.2
MEAN_DECISIONS = 40
TEXT = 64
SEGMENT_EVENTS = 20_000
KINDS = policy_kinds(["purchase"])
PLAN = Exploration(epsilon=0.1, pool=50)
FIRST_DAY, DAYS = 20_400, 7  # days since 1970
BOOT = "b" * 32


class NightClock(SystemClock):
    """A clock at the end of the log's last day."""

    def wall_ms(self) -> int:
        """Return wall ms since 1970."""
        return 1000 * DAY * (FIRST_DAY + DAYS)


def item_id(row: int) -> str:
    """Return the id of an item."""
    return f"item-{row}"


def write_checkpoint(folder: Path, items: int) -> None:
    """Write the checkpoint of release 1, with random vectors and a week of popularity."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    text = torch.nn.functional.normalize(torch.randn(items, TEXT), dim=1)
    config = Config(language_model="none")
    network = PolicyNetwork(config, text, torch.empty(0, TEXT), len(KINDS))
    likes = rng.integers(0, items, 20 * items)
    days = DAY * (FIRST_DAY - 1 - rng.integers(0, 7, len(likes)))
    popularity = PopularityHistory.of(np.arange(len(likes)), likes, days, items)
    network.set_popularity_day(popularity, FIRST_DAY)
    ids = [item_id(row) for row in range(items)]
    catalog = Catalog(ids, ids, [{} for _ in ids])
    end = FIRST_DAY * DAY
    metadata = CheckpointMetadata("bench", 1, 0, KINDS, True, end - 30 * DAY, end - 1, "")
    made = Checkpoint(network, catalog, config, metadata, popularity, Exposure.of_log(likes, items))
    (folder / "encoder").mkdir(parents=True)
    checkpoint.save(folder, made, {})


def write_store(folder: Path, decisions: int, items: int, seed: int = 0) -> dict[str, int]:
    """Write segments of so many decisions; return how many installs, events and bytes."""
    rng = random.Random(seed)
    lines: list[bytes] = []
    counts = {"installs": 0, "events": 0, "bytes": 0}
    day = folder / segment_format.SEGMENTS / "2025-11-15"
    day.mkdir(parents=True)
    received_at = NightClock().wall_ms()

    def flush() -> None:
        data = segment_format.pack(lines)
        (day / f"{counts['events']:012d}{segment_format.SUFFIX}").write_bytes(data)
        counts["bytes"] += len(data)
        lines.clear()

    left = decisions
    while left:
        own = min(left, 1 + int(rng.expovariate(1 / (MEAN_DECISIONS - 1))))
        for event in _install(rng, own, items):
            lines.append(segment_format.encode_line(codec.encode(event), received_at, received_at))
            counts["events"] += 1
            if len(lines) == SEGMENT_EVENTS:
                flush()
        counts["installs"] += 1
        left -= own
    if lines:
        flush()
    return counts


def _install(rng: random.Random, decisions: int, items: int) -> Iterator[Event]:
    """Yield the events of one install, numbered without gaps."""
    install = f"{rng.getrandbits(128):032x}"
    user = f"{rng.getrandbits(128):032x}"
    checksum, steps, seq = NO_EVENTS, 0, 0
    start, span = 1000 * DAY * FIRST_DAY, 1000 * DAY * DAYS
    time = 0.0

    def common() -> tuple[str, str, int, str, ClockReading]:
        nonlocal seq
        seq += 1
        clock = ClockReading(start + int(time), 1000 * seq, BOOT)
        return f"{rng.getrandbits(128):032x}", install, seq, user, clock

    for number in range(decisions):
        time = span * number / decisions
        item = item_id(rng.randrange(items))
        yield Observation(*common(), item=item, kind="purchase")
        checksum, steps = next_checksum(checksum, item, "purchase"), steps + 1

        decision = _decision(rng, common(), items, checksum, steps)
        yield decision
        for slot in range(rng.randint(1, SEEN)):
            shown = decision.slate[slot].item
            clicks = rng.random() < CLICKS
            kind, value = ("click", 1.0) if clicks else ("skip", -1.0)
            yield Outcome(
                *common(), decision.id, slot, shown, kind, value=value, updates_state=clicks
            )
            if clicks:
                checksum, steps = next_checksum(checksum, shown, kind), steps + 1


def _decision(
    rng: random.Random,
    common: tuple[str, str, int, str, ClockReading],
    items: int,
    checksum: str,
    steps: int,
) -> Decision:
    uniforms = [(rng.random(), rng.random()) for _ in range(SLOTS)]
    drawn = schemes.draw(PLAN, SLOTS, np.zeros(PLAN.pool), uniforms)
    first = rng.randrange(items)
    columns = zip(drawn.ranks, drawn.explored, drawn.conditional, drawn.marginal, strict=True)
    return Decision(
        *common,
        release=1,
        scheme="sequential",
        epsilon=PLAN.epsilon,
        pool=PLAN.pool,
        eligible=items,
        slate=[Slot(item_id((first + rank) % items), rank, *rest) for rank, *rest in columns],
        state_checksum=checksum,
        state_events=steps,
    )
