"""Reading safetensors: the reference reader's tensors, and `BundleError` if malformed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from sanderling.bundle.tensors import MAX_HEADER_BYTES, expect, map_tensors
from sanderling.errors import BundleError

DTYPES = [np.int8, np.int32, np.int64, np.uint64, np.float32]


def write(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(shape: Iterable[int], start: int, stop: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def test_tensors_are_those_of_the_reference(tmp_path: Path) -> None:
    """Every dtype and shape that the reference writer writes is mapped to the same numbers."""
    rng = np.random.default_rng(0)
    shapes = [(), (0,), (1,), (3, 0, 2), (5, 7)]
    tensors = {
        f"{np.dtype(dtype).name}{shape}": rng.integers(0, 100, shape).astype(dtype)
        for dtype in DTYPES
        for shape in shapes
    }
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata={"a": "b"})
    mapped = map_tensors(path)
    reference = load_file(path)
    assert mapped.keys() == reference.keys()
    for name, tensor in reference.items():
        assert mapped[name].dtype == tensor.dtype
        np.testing.assert_array_equal(mapped[name], tensor)


def test_tensors_are_mapped_read_only(tmp_path: Path) -> None:
    """The tensors are read-only views of the mapped file, not copies."""
    path = tmp_path / "x.safetensors"
    save_file({"x": np.ones(1000, np.float32)}, path)
    tensor = map_tensors(path)["x"]
    assert not tensor.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        tensor[0] = 2


def test_unexpected_tensors_are_reported(tmp_path: Path) -> None:
    """A missing tensor, another dtype and another shape name what was expected and found."""
    path = tmp_path / "x.safetensors"
    save_file({"x": np.ones((2, 3), np.float32)}, path)
    tensors = map_tensors(path)
    assert expect(tensors, "f", "x", np.float32, (2, 3)) is tensors["x"]
    with pytest.raises(BundleError, match=r"f: expected a tensor y, found \['x'\]"):
        expect(tensors, "f", "y", np.float32, (2, 3))
    with pytest.raises(BundleError, match=r"f: x: expected int8 \[2, 3\], found float32 \[2, 3\]"):
        expect(tensors, "f", "x", np.int8, (2, 3))
    with pytest.raises(BundleError, match=r"expected float32 \[3, 2\], found float32 \[2, 3\]"):
        expect(tensors, "f", "x", np.float32, (3, 2))


@pytest.mark.parametrize(
    "content", [b"", b"\x02", bytes(8), b"\xff" * 8, (2**62).to_bytes(8, "little") + b"{}"]
)
def test_a_missing_header_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file without room for its header is refused before anything is allocated."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="expected a header"):
        map_tensors(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A missing file and a folder in a file's place are refused."""
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(BundleError):
            map_tensors(path)


MALFORMED = {
    "not json": b"hello world",
    "null": b"null",
    "list": b"[]",
    "number": b"12",
    "invalid utf-8": b'{"\xff": 1}',
    "bom": b"\xef\xbb\xbf{}",
    "deep": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "trailing": b"{} {}",
    "entry is null": {"x": None},
    "entry is a list": {"x": [1, 2]},
    "entry lacks a field": {"x": {"dtype": "F32", "shape": [1]}},
    "entry has another field": {"x": {**entry([1], 0, 4), "y": 1}},
    "dtype unknown": {"x": entry([1], 0, 4, "F64")},
    "dtype object": {"x": entry([1], 0, 8, "O")},
    "dtype is a number": {"x": {**entry([1], 0, 4), "dtype": 3}},
    "shape negative": {"x": entry([-1], 0, 4)},
    "shape doubly negative": {"x": entry([-1, -1], 0, 4)},
    "shape too big": {"x": entry([2**40], 0, 4)},
    "shape overflows": {"x": entry([2**32, 2**32], 0, 0)},
    "shape of 5,000 digits": b'{"x": {"dtype": "F32", "shape": [1'
    + b"0" * 5000
    + b'], "data_offsets": [0, 4]}}',
    "shape empty but huge": {"x": entry([0, 2**62], 0, 0)},
    "shape empty but beyond int64": {"x": entry([0, 2**63], 0, 0)},
    "shape of 100 sides": {"x": entry([1] * 100, 0, 4)},
    "shape of floats": {"x": {**entry([1], 0, 4), "shape": [1.0]}},
    "shape of booleans": {"x": {**entry([1], 0, 4), "shape": [True]}},
    "offset negative": {"x": entry([1], -4, 0)},
    "offset backwards": {"x": entry([1], 4, 0)},
    "offset beyond the file": {"x": entry([1], 8, 12)},
    "offset beyond int64": {"x": entry([1], 2**63, 2**63 + 4)},
    "offsets of three": {"x": {**entry([1], 0, 4), "data_offsets": [0, 2, 4]}},
    "length differs": {"x": entry([1], 0, 3)},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_headers_are_refused(tmp_path: Path, name: str) -> None:
    """Whatever the header claims, the result is `BundleError`: no crash, no other exception."""
    path = write(tmp_path / "x.safetensors", MALFORMED[name], bytes(8))
    with pytest.raises(BundleError, match=r"x\.safetensors"):
        map_tensors(path)


def test_a_header_over_the_limit_is_refused(tmp_path: Path) -> None:
    """A header over the limit is refused, although the file holds it."""
    with pytest.raises(BundleError, match="expected a header"):
        map_tensors(write(tmp_path / "x", b"{}" + b" " * MAX_HEADER_BYTES))


@given(st.data())
@example(None)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_mutated_files_are_read_or_refused(tmp_path: Path, data: st.DataObject | None) -> None:
    """A file with bytes changed, cut or added is either read or refused with `BundleError`."""
    path = tmp_path / "x.safetensors"
    save_file(
        {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=np.int8)}, path
    )
    if data is not None:
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(
            content[: data.draw(st.integers(0, len(content)))] + data.draw(st.binary(max_size=4))
        )
    try:
        tensors = map_tensors(path)
    except BundleError:
        assert data is not None
        return
    for tensor in tensors.values():
        tensor.sum()
