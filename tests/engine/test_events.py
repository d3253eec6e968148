"""The wire format: old events stay readable; malformed ones are rejected with their place."""

from __future__ import annotations

import base64
import json
import math
import random
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from sanderling.errors import BatchSizeError, EventError
from sanderling.events import codec, semantics
from sanderling.events import schema as wire
from sanderling.events.schema import Decision, Loss, Observation, Outcome
from tests.support.fakes import EventFactory

GOLDEN = (Path(__file__).parents[1] / "golden" / "events-1.jsonl").read_bytes().splitlines()


def test_golden_events_of_format_1_are_read_as_meant():
    """The golden file of format 1 decodes to the events with which it was written."""
    clicked, unseen, click, skip, observation, loss, with_quota = map(codec.decode, GOLDEN)
    assert isinstance(clicked, Decision)
    assert [(slot.item, slot.rank, slot.conditional) for slot in clicked.slate] == [
        ("red", 0, 0.9),
        ("blue", 3, 0.05),
    ]
    assert (unseen.context, unseen.pass_probability) == ("AAAAAA==", 0.25)
    assert isinstance(click, Outcome)
    assert (click.decision, click.slot, click.value) == (clicked.id, 0, 1.0)
    assert (skip.slot, skip.value, skip.kind) == (1, -1.0, "skip")
    assert isinstance(observation, Observation)
    assert observation.item == "größe 42 ☂"
    assert isinstance(loss, Loss)
    assert (loss.reason, loss.decisions, loss.outcomes, loss.observations) == ("full", 2, 1, 0)
    assert [slot.newcomer for slot in with_quota.slate] == [UNSET, True]
    assert (with_quota.newcomers, with_quota.newcomer_rate) == (3, 0.03)
    assert with_quota.pool_items == ["red", "blue", "green"]
    assert semantics.semantic_fault(with_quota) is None


def test_golden_events_are_written_as_before():
    """Decoding and encoding gives the golden bytes again: the format has not changed."""
    assert [codec.encode(codec.decode(line)) for line in GOLDEN] == GOLDEN


def test_every_kind_survives_a_batch():
    """Packed and unpacked lines are the same, in order."""
    assert list(codec.unpack(codec.pack(GOLDEN))) == GOLDEN


def altered(**changes) -> bytes:
    return json.dumps(json.loads(GOLDEN[2]) | changes).encode()


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (altered(extra=1), "extra"),
        (altered(value=True), "value"),
        (altered(value="1"), "value"),
        (altered(value=1.5), "value"),
        (altered(value=None), "value"),
        (altered(slot=True), "slot"),
        (altered(slot=-1), "slot"),
        (altered(slot=0.5), "slot"),
        (altered(updates_state=1), "updates_state"),
        (altered(id="x"), "id"),
        (altered(id="A" * 32), "id"),
        (altered(id=""), "id"),
        (altered(seq=0), "seq"),
        (altered(seq=2**60), "seq"),
        (altered(item=""), "item"),
        (altered(item="x" * 513), "item"),
        (altered(type="future"), "type"),
        (altered(type=1), "type"),
        (altered(clock={"wall": 1, "mono": 2}), "clock"),
        (GOLDEN[2].replace(b'"value":1.0', b'"value":NaN'), "malformed"),
        (GOLDEN[2].replace(b'"value":1.0', b'"value":-Infinity'), "malformed"),
        (GOLDEN[2].replace(b'"value":1.0', b'"value":1e999'), "range"),
        (GOLDEN[2].replace(b'"red"', b'"\xff"'), "utf-8"),
        (GOLDEN[2].replace(b'"red"', b'"\\ud800"'), "surrogate"),
        (GOLDEN[0].replace(b'"conditional":0.9', b'"conditional":0'), "conditional"),
        (GOLDEN[0].replace(b'"conditional":0.9', b'"conditional":1.1'), "conditional"),
        (GOLDEN[0].replace(b'"slate":[', b'"slate":[[],'), "slate"),
        (b"", "truncated"),
        (b"null", "object"),
        (b"[]", "object"),
        (b"{}", "type"),
        (b"[" * 60_000, ""),
        (b'{"a":' * 10_000, ""),
        (b'{"type":"outcome","clock":' + b"[" * 60_000, ""),
        (b'"' + b"x" * wire.MAX_LINE + b'"', "at most"),
    ],
)
def test_malformed_events_are_rejected_with_their_place(line, place):
    """Unknown fields, wrong types, NaN, out-of-range numbers, deep nesting and bad text are
    EventErrors."""
    with pytest.raises(EventError) as error:
        codec.decode(line)
    assert place.lower() in str(error.value).lower()


@given(st.integers(0, 2), st.data())
def test_altered_bytes_give_an_event_or_an_event_error(which, data):
    """Decoding a line with altered bytes gives an event or an EventError, nothing else."""
    line = bytearray(GOLDEN[which])
    for _ in range(data.draw(st.integers(1, 4))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    with suppress(EventError):
        codec.decode(bytes(line))


@given(st.binary(max_size=300))
def test_any_bytes_unpack_or_are_refused(body):
    """Unpacking arbitrary bytes raises EventError or gives lines."""
    with suppress(EventError):
        list(codec.unpack(body))


def test_every_truncation_of_a_frame_is_refused():
    """No prefix of a batch is accepted as a batch."""
    body = codec.pack(GOLDEN)
    for size in range(len(body)):
        with pytest.raises(EventError):
            codec.unpack(body[:size])


def test_bytes_behind_the_frame_are_refused():
    """A second frame, or anything else after the first, is rejected."""
    body = codec.pack(GOLDEN)
    for extra in (b"x", body, b"\x00" * 100):
        with pytest.raises(EventError, match="more bytes behind it"):
            codec.unpack(body + extra)


def bomb(size: int) -> bytes:
    """Zeros in a frame of unknown size."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    parts = [compressor.compress(bytes(2**20)) for _ in range(size // 2**20)]
    return b"".join(parts) + compressor.flush()


def lying_about_its_size() -> bytes:
    """A frame of 4 MiB whose header says 5 bytes, in the one-byte field of a single-segment
    frame."""
    body = zstandard.ZstdCompressor(level=1).compress(b"x" * 5)
    assert body[4] & 0xE0 == 0x20
    return body[:5] + bytes([4]) + bomb(2**22)[6:]


@pytest.mark.parametrize(
    "body",
    [
        bomb(2**30),
        zstandard.ZstdCompressor(level=1).compress(bytes(2**28)),
        zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(window_log=27)
        ).compress(random.Random(1).randbytes(2**20) * 6),
        lying_about_its_size(),
    ],
    ids=["1 GiB of unknown size", "256 MiB declared", "a window of 128 MiB", "a lying header"],
)
def test_a_bomb_is_refused_in_little_memory(body):
    """A batch that unpacks to more than the limit is rejected without unpacking more than that."""
    tracemalloc.start()
    try:
        with pytest.raises(EventError):
            codec.unpack(body)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


def test_the_limit_is_exact():
    """A batch of exactly the limit passes; one byte more does not."""
    assert [len(line) for line in codec.unpack(codec.pack([b"x" * 1000]), limit=1000)] == [1000]
    with pytest.raises(BatchSizeError, match="at most 1000 bytes"):
        codec.unpack(codec.pack([b"x" * 1001]), limit=1000)


def test_a_small_batch_takes_little_memory_though_it_does_not_say_its_size():
    """A small batch in a frame of unknown size is unpacked without a buffer of the limit."""
    body = zstandard.ZstdCompressor(write_content_size=False).compress(GOLDEN[0])
    tracemalloc.start()
    try:
        assert list(codec.unpack(body)) == [GOLDEN[0]]
        assert tracemalloc.get_traced_memory()[1] < 2**19
    finally:
        tracemalloc.stop()


def numbers(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"slate": [wire.Slot("red", 0, False, 0.5, 0.5)] * 2}, "slate"),
        ({"pool": 201}, "pool"),
        ({"pool": 10_001, "eligible": 2**53}, "pool"),
        ({"pool": 1}, "slate"),
        ({"context": "abc"}, "context"),
        ({"context": "AAAA"}, "context"),
        ({"context": "AAAAAA=="[:-1]}, "context"),
        ({"context": "AAAA AA=="}, "context"),
        ({"context": "é"}, "context"),
        ({"context": "\x00"}, "context"),
        ({"context": numbers(1.0, math.nan)}, "context"),
        ({"context": numbers(math.inf, -math.inf)}, "context"),
    ],
)
def test_semantic_faults_are_named(fields, place):
    """Repeated items, oversized pools and slates, and bad contexts are faults."""
    fault = semantics.semantic_fault(EventFactory().decision(**fields))
    assert fault is not None
    assert fault.startswith(place)
    assert semantics.semantic_fault(EventFactory().decision()) is None


@pytest.mark.parametrize("values", [(), (0.0,), (1.0, -2.5), (3.4e38,) * 384])
def test_contexts_of_any_finite_numbers_are_sound(values):
    """Contexts of finite numbers are accepted, even where their sum is beyond float32."""
    assert semantics.semantic_fault(EventFactory().decision(context=numbers(*values))) is None


@given(st.text(min_size=1, max_size=wire.MAX_NAME))
def test_no_slot_takes_more_bytes_than_its_bound(item):
    """Whatever the id, so that short slates need not be measured to know that they fit."""
    assert codec.slot_bytes(item, True) <= codec.MAX_SLOT_BYTES
    assert codec.slot_bytes("\x01" * len(item), True) <= codec.MAX_SLOT_BYTES
