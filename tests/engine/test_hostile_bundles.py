"""Bundles whose hashes are right and whose content is hostile: nothing of it leaves a call, and
`verify` refuses it in a child process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from sanderling import BundleError, Engine
from sanderling.bundle import writer
from sanderling.bundle.manifest import MAX_ID
from sanderling.bundle.reader import Bundle
from sanderling.ranking.encoder_operators import operator_faults
from sanderling.ranking.text_encoder import TextEncoder
from sanderling.releases.probe import probe
from sanderling.runtime.child_process import ChildFailedError
from tests.support.bundles import ENCODER, record, reseal, write_bundle
from tests.support.engines import scorer_of

ENDLESS = """
import sanderling.ranking.golden_check
sanderling.ranking.golden_check.faults = lambda bundle: any(iter(int, 1))
"""


class PanicException(BaseException):
    """What PyO3 raises where Rust code panics: no `Exception`."""


class Raising:
    """A tokenizer that fails."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def encode(self, text: str) -> None:
        raise self.error


def field(number: int, *values: bytes | int) -> bytes:
    """Return a protobuf field once for each value; for tests all lengths and numbers are < 128."""
    return b"".join(
        bytes([8 * number & 0x7F | 0x80, number >> 4, value])
        if isinstance(value, int)
        else bytes([(8 * number & 0x7F | 2) | 0x80, number >> 4, len(value)]) + value
        for value in values
    )


def model(*nodes: bytes, **parts: bytes) -> bytes:
    """Return an ONNX model of nodes; `parts` are added to the model or to its graph."""
    graph = field(1, *nodes) + parts.get("graph", b"")
    return field(7, graph) + parts.get("model", b"")


def node(operator: bytes, rest: bytes = b"") -> bytes:
    return field(4, operator) + rest


HOSTILE = {
    "a loop": (model(node(b"Loop", field(5, field(6, b"")))), "tensors alone, found b'Loop'"),
    "a hidden body": (model(node(b"Add", field(5, field(6, b"")))), "no graph inside"),
    "many bodies": (model(node(b"Add", field(5, field(11, b"")))), "no graph inside"),
    "a domain": (model(node(b"Add", field(7, b"evil"))), "some of b'evil'"),
    "a function": (model(node(b"Add"), model=field(25, b"")), "no functions"),
    "another file": (model(node(b"Add"), graph=field(5, field(14, 1))), "inside the file"),
    "a file in a constant": (
        model(node(b"Constant", field(5, field(5, field(13, b""))))),
        "inside the file",
    ),
    "a sparse tensor": (model(node(b"Add"), graph=field(15, b"")), "no sparse"),
    "NaN in a tensor": (
        model(node(b"Add"), graph=field(5, field(2, 1) + field(9, b"\0\0\xc0\x7f"))),
        "found NaN",
    ),
    "a cut": (model(node(b"Add"))[:-1], "cut off"),
    "an endless number": (b"\xff" * 20, "more than 10 bytes"),
    "a wire type": (b"\x0b", "wire type 3"),
    "half a number": (b"\xff", "expected an ONNX model"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_encoder_may_only_compute_tensors(tmp_path, name):
    """Control flow, functions, other domains, other files and malformed bytes are named."""
    content, expected = HOSTILE[name]
    (tmp_path / "encoder.onnx").write_bytes(content)
    faults = operator_faults(tmp_path / "encoder.onnx")
    assert any(expected in fault for fault in faults)
    assert all(fault.startswith("encoder.onnx: ") for fault in faults)


def test_an_honest_encoder_has_no_faults(tmp_path):
    """Operators on tensors, with attributes and constants, pass; so does the tests' encoder."""
    assert operator_faults(ENCODER / "encoder.onnx") == []
    (tmp_path / "m").write_bytes(model(node(b"Gather"), node(b"Constant", field(5, field(5, b"")))))
    assert operator_faults(tmp_path / "m") == []


@pytest.mark.parametrize("error", [PanicException("of anna"), RuntimeError("bad"), MemoryError()])
def test_a_context_that_cannot_be_encoded_is_counted(engine, monkeypatch, error):
    """Whatever a native library raises, a panic included, the slate comes without context, and the
    counters tell so, without the text of a panic."""
    loaded = (Raising(error), None)
    monkeypatch.setattr(scorer_of(engine).encoder, "load", lambda: loaded)
    assert len(engine.recommend("anna", context="rainy")) == 10
    counters = engine.counters()["encoder"]
    assert (counters.encoded, counters.failed) == (0, 1)
    assert "anna" not in counters.last_fault
    monkeypatch.undo()
    engine.recommend("anna", context="rainy")
    assert (engine.counters()["encoder"].encoded, engine.counters()["encoder"].failed) == (1, 1)


def test_an_item_that_cannot_be_encoded_is_an_error_of_ours(engine, monkeypatch):
    """A panic while an item is added is a `BundleError`, and nothing was added."""
    loaded = (Raising(PanicException()), None)
    monkeypatch.setattr(scorer_of(engine).encoder, "load", lambda: loaded)
    with pytest.raises(BundleError, match="a native library panicked"):
        engine.upsert_items([{"id": "new", "text": "new"}])
    assert scorer_of(engine).find("new") is None


def test_an_interrupt_is_no_panic(bundle, monkeypatch):
    """Ctrl-C while a text is encoded leaves the call."""
    encoder = TextEncoder(bundle, 16, 64)
    monkeypatch.setattr(encoder, "load", lambda: (Raising(KeyboardInterrupt()), None))
    with pytest.raises(KeyboardInterrupt):
        encoder.encode("rainy")


def add_normalizers(folder: Path, *normalizers: dict) -> None:
    """Let a bundle's tokenizer change texts first."""
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    tokenizer["normalizer"] = {
        "type": "Sequence",
        "normalizers": [tokenizer["normalizer"], *normalizers],
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    reseal(folder)


def swell(folder: Path) -> None:
    """Make a thousand of each letter e of a text, five times over."""
    more = {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 1000}
    add_normalizers(folder, *[more] * 5)


def loop(folder: Path) -> None:
    (folder / "encoder.onnx").write_bytes(model(node(b"Loop")))
    reseal(folder)


def break_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    reseal(folder)


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (swell, "memory|killed|panicked|cannot be encoded"),
        (loop, "Loop"),
        (break_tokenizer, "does not load"),
    ],
    ids=["swells", "loops", "does not load"],
)
def test_verify_tries_encoder_and_tokenizer_elsewhere(tmp_path, harm, expected):
    """A hostile encoder or tokenizer opens without `verify`, and is a `BundleError` with it."""
    write_bundle(tmp_path / "bundle")
    harm(tmp_path / "bundle")
    Engine.open(tmp_path / "bundle").close()
    with pytest.raises(BundleError, match=expected):
        Engine.open(tmp_path / "bundle", verify=True)


def test_a_good_bundle_passes_verify(bundle):
    """With `verify` a bundle that computes its golden vectors opens."""
    Engine.open(bundle, verify=True).close()


def test_a_trial_that_does_not_end_is_a_fault(bundle, tmp_path, monkeypatch):
    """A trial that computes for ever is ended at its processor time, and is a fault."""
    (tmp_path / "sitecustomize.py").write_text(ENDLESS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    [fault] = probe(bundle, cpu_s=1)
    assert "processor time" in fault


def test_a_trial_that_was_cut_short_is_no_fault(bundle, tmp_path, monkeypatch):
    """Where the caller leaves the trial less time than its own limit, nothing is known."""
    (tmp_path / "sitecustomize.py").write_text(ENDLESS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ChildFailedError, match="took longer than"):
        probe(bundle, timeout_s=0.5)


def test_ids_that_events_cannot_hold_are_refused(tmp_path):
    """An id that is longer than events take is an error when it is shown, and with `verify` at
    once: its rewards would be rejected for ever."""
    folder = tmp_path / "bundle"
    write_bundle(folder, items=10)
    items = Bundle.open(folder).items
    copies = [np.array(tensor) for tensor in (items.rows, items.scale, items.bias)]
    records = [record(row) for row in range(10)]
    records[3]["id"] = "x" * (MAX_ID + 1)
    writer.write_items(folder, *copies, records)
    reseal(folder)
    opened = Bundle.open(folder)
    assert opened.record(2)["id"] == "item-2"
    for call in (lambda: opened.record(3), lambda: Bundle.open(folder, verify=True)):
        with pytest.raises(BundleError, match=f"id: expected a text of 1 to {MAX_ID} characters"):
            call()
