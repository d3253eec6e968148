"""Golden vectors: an old bundle still computes them; an intact but wrong one is detected."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from safetensors.numpy import load_file, save_file

from sanderling.bundle.reader import Bundle
from sanderling.ranking.golden_check import faults
from tests.support.bundles import record, reseal

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "bundle-1", tmp_path / "bundle"))


def test_format_1_stays_readable() -> None:
    """The stored bundle of format 1 opens, verifies, and computes its golden vectors."""
    bundle = Bundle.open(GOLDEN / "bundle-1", verify=True)
    assert bundle.manifest.schema == 1
    assert bundle.items.newcomers.tolist() == [3, 17]
    assert [bundle.record(row) for row in range(50)] == [record(row) for row in range(50)]
    assert faults(bundle) == []


def edit_golden(folder: Path, edit: Callable[[Any], object]) -> None:
    golden = msgspec.json.decode((folder / "golden.json").read_bytes())
    edit(golden)
    (folder / "golden.json").write_bytes(msgspec.json.encode(golden))
    reseal(folder)


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "vector": (
        lambda golden: golden["texts"][1].update(vector=golden["texts"][0]["vector"]),
        "cosine",
    ),
    "one number": (lambda golden: golden["texts"][0]["vector"].__setitem__(3, 0.5), "cosine"),
    "NaN as null": (
        lambda golden: golden["texts"][0]["vector"].__setitem__(0, None),
        r"golden\.json",
    ),
    "zero vector": (lambda golden: golden["texts"][0].update(vector=[0.0] * 16), "cosine"),
    "length": (lambda golden: golden["texts"][0]["vector"].pop(), "expected 15 numbers, found 16"),
    "top-10": (
        lambda golden: golden["states"][1].update(top=golden["states"][0]["top"]),
        "overlap",
    ),
    "no top": (lambda golden: golden["states"][1].update(top=[]), "overlap"),
    "no texts": (lambda golden: golden.update(texts=[]), "expected texts and states"),
    "no states": (lambda golden: golden.update(states=[]), "expected texts and states"),
    "another field": (lambda golden: golden.update(more=1), r"golden\.json"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_golden_vectors_are_detected(bundle: Path, name: str) -> None:
    """A bundle that verifies but does not compute its golden vectors has a fault."""
    edit, expected = WRONG[name]
    edit_golden(bundle, edit)
    assert re.search(expected, "; ".join(faults(Bundle.open(bundle, verify=True))))


@pytest.mark.parametrize("content", [b"", b"null", b"\xff", b'{"texts": ' + b"[" * 100_000])
def test_damaged_golden_is_a_fault(bundle: Path, content: bytes) -> None:
    """A golden.json that cannot be read is a fault, never an exception."""
    opened = Bundle.open(bundle)
    (bundle / "golden.json").write_bytes(content)
    assert faults(opened)[0].startswith("golden.json")


def test_permuted_items_are_detected(bundle: Path) -> None:
    """Item rows in another order than the catalog's verify, but rank other items."""
    path = bundle / "items.safetensors"
    tensors = dict(load_file(path))
    save_file({**tensors, "rows": tensors["rows"][::-1].copy()}, path)
    reseal(bundle)
    assert "overlap" in "; ".join(faults(Bundle.open(bundle, verify=True)))


def test_a_broken_encoder_is_detected(bundle: Path) -> None:
    """An encoder file that is not a model is a fault, although its hash is right."""
    (bundle / "encoder.onnx").write_bytes(b"no model")
    reseal(bundle)
    assert "expected an ONNX model" in faults(Bundle.open(bundle, verify=True))[0]
