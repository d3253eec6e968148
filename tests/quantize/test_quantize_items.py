"""What of a checkpoint's items goes into the bundle."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from sanderling.bundle import columns
from sanderling_quantize.checkpoint import Checkpoint, CheckpointError
from sanderling_quantize.quantize_items import quantize_items

pytestmark = pytest.mark.lab


def checkpoint(folder, **tensors):
    """Return a checkpoint of four items with these tensors beside the vectors and biases."""
    items = {
        "item.vectors": np.eye(4, 3, dtype=np.float32),
        "item.biases": np.zeros(4, np.float32),
        "item.bias": np.zeros(1, np.float32),
    }
    records = [{"id": f"item-{row}", "title": ""} for row in range(4)]
    return Checkpoint(folder, {}, {**items, **tensors}, [""] * 4, records)


def test_newcomers_of_the_checkpoint_are_listed_in_the_bundle(tmp_path):
    """The rows flagged in `item.newcomer` are listed, and the flags are no tensor of the device."""
    flags = np.array([0, 1, 0, 1], np.uint8)
    quantize_items(checkpoint(tmp_path, **{"item.newcomer": flags}), tmp_path)
    assert load_file(tmp_path / "items.safetensors")["newcomers"].tolist() == [1, 3]
    assert set(load_file(tmp_path / "policy.safetensors")) == {"item.bias"}


@pytest.mark.parametrize("tensors", [{}, {"item.newcomer": np.zeros(4, np.uint8)}])
def test_a_checkpoint_without_newcomers_gives_no_list(tmp_path, tensors):
    """Without the tensor, or with no item flagged, the bundle has no list."""
    quantize_items(checkpoint(tmp_path, **tensors), tmp_path)
    assert "newcomers" not in load_file(tmp_path / "items.safetensors")


def test_the_attributes_are_written_as_columns(tmp_path):
    """Each attribute has a type by its values, and a column unless it is a text."""
    of_items = checkpoint(tmp_path)
    for row, record in enumerate(of_items.records):
        record |= {"price": row, "genre": ["jazz"], "title": f"item {row}"}
    quantize_items(of_items, tmp_path)
    found = columns.read(tmp_path, 4)
    assert found.types == {"title": "text", "price": "number", "genre": "categories"}
    assert found.numbers("price").tolist() == [0, 1, 2, 3]
    assert found.categories("genre").vocabulary == ["jazz"]


def test_flags_of_another_number_of_items_are_an_error(tmp_path):
    """Flags that do not fit the items name the tensor, both shapes, and the remedy."""
    wrong = checkpoint(tmp_path, **{"item.newcomer": np.zeros(5, np.uint8)})
    with pytest.raises(CheckpointError, match=r"item\.newcomer: expected \[4\] flags, found \[5\]"):
        quantize_items(wrong, tmp_path)
