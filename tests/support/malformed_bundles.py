"""Malformed bundles: manifests, field values, file names, and edits that hashes do not show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

MANIFESTS: dict[str, bytes] = {
    "empty": b"",
    "not json": b"<html>",
    "null": b"null",
    "list": b"[]",
    "number": b"7",
    "utf-16": "{}".encode("utf-16"),
    "bom": b"\xef\xbb\xbf{}",
    "invalid utf-8": b'{"app": "\xff"}',
    "deep": b'{"reports": ' * 100_000,
    "deep in an ignored field": b'{"reports": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "10 MB": b" " * 10_000_000,
}


FIELD_VALUES: dict[str, list[Any]] = {
    "release": [0, -1, 2**63, "7", 7.5, True, None, [], 10**30],
    "created": [-1, 2**63, "x", None],
    "app": ["", "A", "../x", "a" * 65, "a\0b", 7, None, "а"],
    "min_engine": ["", "1", "1.0", "v1.0.0", "1.0.0-rc1", 1, None],
    "schema": [0, 2, "1", None],
    "kinds": [[], ["x"] * 257, "view", [1], None],
    "sizes": [{}, None, {"items": 0}],
    "exploration": [
        *({"epsilon": -0.1}, {"epsilon": 1.0000001}, {"epsilon": "0.1"}, {"epsilon": True}),
        *({"pool": 0}, {"scheme": "greedy"}, {"unknown": 1}),
    ],
    "lineage": [{}, None],
    "reports": [[], None],
    "unknown": [1],
    "files": [{}, [], None],
}


FILE_NAMES = [
    "../x",
    "/etc/passwd",
    "a\0b",
    "CON",
    "x/",
    "x" * 300,
    "encoder.onnх",
    "Encoder.onnx",
    "",
    ".",
    "manifest.json",
]


def change(
    name: str, tensor: str, edit: Callable[[np.ndarray], np.ndarray | None]
) -> Callable[[Path], None]:
    """Return an edit of one tensor of a file; `edit` returns the new one, or None to remove it."""

    def apply(folder: Path) -> None:
        tensors = {key: value.copy() for key, value in load_file(folder / name).items()}
        edited = edit(tensors.pop(tensor))
        save_file(tensors if edited is None else {**tensors, tensor: edited}, folder / name)

    return apply


def put(value: float, position: Any = 0) -> Callable[[np.ndarray], np.ndarray]:
    """Return an edit that sets one element."""

    def edit(tensor: np.ndarray) -> np.ndarray:
        tensor[position] = value
        return tensor

    return edit


def rewrite(old: bytes, new: bytes) -> Callable[[Path], None]:
    """Return an edit that replaces bytes of the catalog, once, by as many others."""

    def apply(folder: Path) -> None:
        assert len(old) == len(new)
        content = (folder / "catalog.jsonl").read_bytes()
        assert old in content
        (folder / "catalog.jsonl").write_bytes(content.replace(old, new, 1))

    return apply


ITEMS, POLICY = "items.safetensors", "policy.safetensors"
EDITS: dict[str, Callable[[Path], None]] = {
    "rows as float": change(ITEMS, "rows", lambda x: x.astype(np.float32)),
    "rows fewer": change(ITEMS, "rows", lambda x: x[:-1].copy()),
    "rows wider": change(ITEMS, "rows", lambda x: np.concatenate([x, x], axis=1)),
    "rows absent": change(ITEMS, "rows", lambda x: None),
    "scale NaN": change(ITEMS, "scale", put(np.nan)),
    "scale infinite": change(ITEMS, "scale", put(np.inf)),
    "scale zero": change(ITEMS, "scale", put(0)),
    "scale negative": change(ITEMS, "scale", put(-1)),
    "bias NaN": change(ITEMS, "bias", put(np.nan, -1)),
    "offset backwards": change(ITEMS, "offset", put(10**6, 3)),
    "offset negative": change(ITEMS, "offset", put(-5, 3)),
    "offset equal": change(ITEMS, "offset", put(0, 1)),
    "offset not from 0": change(ITEMS, "offset", put(1)),
    "offset beyond the end": change(ITEMS, "offset", put(10**15, -1)),
    "id_hash unsorted": change(ITEMS, "id_hash", lambda x: x[::-1].copy()),
    "id_hash wrong": change(ITEMS, "id_hash", put(0)),
    "id_row twice": change(ITEMS, "id_row", lambda x: np.full_like(x, x[0])),
    "id_row out of range": change(ITEMS, "id_row", put(10**6)),
    "id_row negative": change(ITEMS, "id_row", put(-1)),
    "decay of 1": change(POLICY, "state.decay", put(1.0)),
    "decay negative": change(POLICY, "state.decay", put(-0.1)),
    "weight NaN": change(POLICY, "output.w2", put(np.nan, (0, 0))),
    "weight infinite": change(POLICY, "context.project", put(-np.inf, (0, 0))),
    "weight absent": change(POLICY, "output.b1", lambda x: None),
    "weight of another rank": change(POLICY, "output.b1", lambda x: x[None].copy()),
    "weight of another width": change(POLICY, "output.b1", lambda x: x[:-1].copy()),
    "kind missing": change(POLICY, "state.kind", lambda x: x[:-1].copy()),
    "catalog empty": lambda folder: (folder / "catalog.jsonl").write_bytes(b"") and None,
    "catalog not json": rewrite(b'{"id":"item-0"', b"{'id':'item-0'"),
    "catalog invalid utf-8": rewrite(b'"red trail', b'"\xff\xfe@ trail'),
    "record without id": rewrite(b'"id":"item-3"', b'"ix":"item-3"'),
    "record with a number as id": rewrite(b'"id":"item-3"', b'"id":12345678'),
    "record with an empty id": rewrite(b'"id":"item-3"', b'"id":""      '),
    "record is a list": rewrite(b'{"id":"item-0"', b'["id","item-0"'),
    "record deep": lambda folder: deepen(folder),
    "id twice": rewrite(b'"id":"item-3"', b'"id":"item-4"'),
}


def deepen(folder: Path) -> None:
    """Make the last record 100,000 lists deep."""
    content = (folder / "catalog.jsonl").read_bytes()
    start = content[:-1].rindex(b"\n") + 1
    content = content[:start] + b'{"id":"item-49","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    (folder / "catalog.jsonl").write_bytes(content)
    change(ITEMS, "offset", put(len(content), -1))(folder)
