"""Events of the JavaScript engine: the same bytes, hashes and ids as Python's, on generated
cases."""

from __future__ import annotations

import hashlib
import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.state_checksum import next_checksum
from sanderling.runtime.clock import time_of, uuid7
from tests.support.javascript import ROOT, needs_node
from tools import js_types

GOLDEN = ROOT / "tests" / "golden" / "events-1.jsonl"
LARGEST = 2**53

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
any_texts = st.text(st.characters(), max_size=30)
ids = st.binary(min_size=16, max_size=16).map(bytes.hex)
counts = st.integers(0, LARGEST)
probabilities = st.floats(1e-300, 1.0)
bits = st.binary(min_size=8, max_size=8)
powers_of_ten = st.integers(-330, 308).map(lambda power: float(f"1e{power}"))


def absent_or(values):
    """Return a strategy for a field that is left out where it does not apply."""
    return st.just(UNSET) | values


clocks = st.builds(wire.ClockReading, st.integers(-LARGEST, LARGEST), counts, ids)
slots = st.builds(
    wire.Slot,
    names,
    counts,
    st.booleans(),
    probabilities,
    st.none() | probabilities,
    absent_or(st.booleans()),
    absent_or(st.booleans()),
)
common = {"id": ids, "install": ids, "seq": st.integers(1, LARGEST), "user": ids, "clock": clocks}
decisions = st.builds(
    wire.Decision,
    **common,
    release=counts,
    scheme=texts,
    epsilon=st.floats(0.0, 1.0),
    pool=counts,
    eligible=counts,
    slate=st.lists(slots, min_size=1, max_size=4),
    state_checksum=ids,
    state_events=counts,
    context=st.none() | texts,
    pass_probability=probabilities,
    guarded=absent_or(counts),
    temperature=absent_or(st.floats(5e-324, 1e308)),
    # Not keys such as "7": an object of JavaScript puts them first when a line is decoded.
    caps=absent_or(st.dictionaries(names.filter(lambda name: not name.isdigit()), counts)),
    pool_items=absent_or(st.lists(names, min_size=1, max_size=4)),
    boosts=absent_or(st.lists(st.floats(-1e9, 1e9), max_size=4)),
    newcomers=absent_or(st.integers(1, LARGEST)),
    newcomer_rate=absent_or(st.floats(5e-324, 1.0)),
    experiment=absent_or(names),
    arm=absent_or(names),
    diversity=absent_or(st.floats(5e-324, 1.0)),
    adapted=absent_or(st.booleans()),
    texts=absent_or(st.builds(wire.TextCounts, counts, counts, counts, counts)),
)
outcomes = st.builds(
    wire.Outcome,
    **common,
    decision=ids,
    slot=counts,
    item=names,
    kind=names,
    value=st.floats(-1.0, 1.0),
    updates_state=st.booleans(),
    flip_probability=absent_or(st.floats(5e-324, 0.4999)),
    late=absent_or(st.booleans()),
)
observations = st.builds(wire.Observation, **common, item=names, kind=names)
steps = st.lists(st.tuples(names, names), min_size=1, max_size=4)
resets = st.builds(wire.StateReset, **common, steps=steps)
losses = st.builds(
    wire.Loss,
    **{name: values for name, values in common.items() if name != "user"},
    reason=names,
    decisions=counts,
    outcomes=counts,
    observations=counts,
    lost_seqs=absent_or(st.lists(st.integers(1, LARGEST), max_size=4)),
)


@pytest.mark.parametrize("path", list(js_types.files()), ids=lambda path: path.name)
def test_the_generated_types_are_up_to_date(path):
    """The committed files are what `python -m tools.js_types` writes."""
    assert path.read_text(encoding="utf-8") == js_types.files()[path]


@needs_node
@settings(max_examples=500)
@given(value=st.floats(allow_nan=False, allow_infinity=False) | powers_of_ten | bits)
def test_floats_have_the_same_form(node, value):
    """Any finite float is written as msgspec writes it, whatever its size and sign."""
    packed = value if isinstance(value, bytes) else struct.pack(">d", value)
    (number,) = struct.unpack(">d", packed)
    if abs(number) < float("inf"):
        assert node("float", packed.hex()) == msgspec.json.encode(number).decode()


@needs_node
@given(value=any_texts)
def test_texts_have_the_same_form(node, value):
    """Any text is escaped as msgspec does it; half of a character is refused by both."""
    try:
        expected = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        with pytest.raises(ValueError, match="whole characters"):
            node("text", value)
    else:
        assert node("text", value) == expected


@needs_node
@settings(max_examples=300)
@given(event=decisions | outcomes | observations | resets | losses)
def test_events_have_the_same_bytes(node, event):
    """Any event that is read and written again is the same line, whichever fields are absent."""
    line = codec.encode(event).decode()
    assert codec.decode(line.encode()) == event
    assert node("line", line) == line


@needs_node
def test_the_golden_events_have_the_same_bytes(node):
    """The lines of wire format 1 are read and written again."""
    for line in GOLDEN.read_text(encoding="utf-8").splitlines():
        assert node("line", line) == line


@needs_node
@given(content=st.binary(max_size=600), size=st.integers(1, 64), key=st.binary(max_size=64))
def test_blake2b_is_hashlib_s(node, content, size, key):
    """BLAKE2b of any content, size of digest and key equals hashlib's."""
    expected = hashlib.blake2b(content, digest_size=size, key=key).hexdigest()
    assert node("blake2b", content.hex(), size, key.hex()) == expected


@needs_node
@given(events=st.lists(st.tuples(any_texts, any_texts), max_size=5))
def test_states_have_the_same_checksum(node, events):
    """A chain of events has the same checksum, texts with half of a character included."""
    ours = theirs = "0" * 32
    for item, kind in events:
        ours = next_checksum(ours, item, kind)
        theirs = node("nextChecksum", theirs, item, kind)
        assert theirs == ours


@needs_node
@given(now_ms=st.integers(0, 2**48 - 1), random=st.binary(min_size=10, max_size=10))
def test_ids_are_the_same(node, now_ms, random):
    """Time and random bytes make the same UUID 7 in both languages."""
    id = uuid7(now_ms, lambda size: random)
    assert node("uuid7", now_ms, random.hex()) == id
    assert time_of(id) == now_ms


@needs_node
@given(items=st.lists(names, max_size=40), boosts=st.lists(st.floats(-1e9, 1e9), max_size=40))
def test_slates_and_pools_have_the_same_room(node, items, boosts):
    """Both engines cut a slate, and leave out a pool, at the same bytes."""
    for item in items:
        assert node("slotBytes", item) == codec.slot_bytes(item)
        assert node("slotBytes", item, True) == codec.slot_bytes(item, True)
    for factor in (1, 40):
        pool = codec.fitting_pool(items * factor, len(items) * factor, boosts)
        expected = None if pool is UNSET else pool
        assert node("fittingPool", items * factor, boosts) == expected


@needs_node
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id": "x"}, "id"),
        ({"seq": 0}, "seq"),
        ({"seq": 1.5}, "seq"),
        ({"value": 2.0}, "value"),
        ({"updates_state": 1}, "updates_state"),
        ({"item": ""}, "item"),
        ({"item": "x" * 513}, "item"),
        ({"clock": None}, "clock"),
        ({"constructor": 1}, "constructor"),
        ({"type": "toString"}, "type"),
    ],
)
def test_an_invalid_line_is_refused_by_the_name_of_its_field(node, change, fault):
    """A field with a wrong type or range, or one that is unknown, is an error that names it."""
    line = GOLDEN.read_text(encoding="utf-8").splitlines()[2]
    valid = msgspec.json.decode(line)
    assert node("line", line) == line
    with pytest.raises(ValueError, match=fault):
        node("line", msgspec.json.encode(valid | change).decode())
