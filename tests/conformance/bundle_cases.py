"""Cases of manifests and bundles, whole and damaged."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from sanderling.bundle import manifest as manifests
from sanderling.bundle.reader import Bundle
from sanderling.errors import BundleError
from sanderling.ranking.bundle_rules import parse as parse_rules
from sanderling.ranking.scorer import Scorer
from tests.conformance.files import BUNDLES, ROOT, CaseFile
from tests.conformance.randoms import pick, whole
from tests.support.malformed_bundles import EDITS, FIELD_VALUES, FILE_NAMES, MANIFESTS

LONGEST = 10_000
"""Bytes of a damaged file that a case may hold."""

WHOLE_NUMBERS = 2**53
"""Beyond it a language whose numbers are doubles reads another manifest."""

VALUES: dict[str, list[Any]] = {
    "release": [1, 7, 2**53, 2**53 + 1],
    "app": ["a", "0.x_y-z", "a" * 64, "-a", ".a", "demo\n"],
    "min_engine": ["0.0.1", "99.0.0", "1.2.3.4", "1.2.x"],
    "kinds": [["x"], ["x"] * 256, ["", "ü"]],
    "exploration.epsilon": [0, 1, 0.5, -0.0, 1.5, None, "0"],
    "exploration.pool": [1, 10_000, 10_001, 0, 2.5],
    "exploration.scheme": ["softmax", "mixture", "Softmax", ""],
    "exploration.temperature": [1e-6, 1e6, 0, 1e7],
    "exploration.guarded": [0, 1000, 1001, -1],
    "exploration.daily": [0, None, 1_000_001],
    "exploration.newcomers": [0, 1, 1.01],
    "sizes.items": [0, 51, 2**53, -1, "50", 50.5],
    "sizes.dim": [0, 15, 17],
    "sizes.max_tokens": [7, 8, 8192, 8193],
    "sizes.more": [1],
    "prefixes": [
        {"item": "p: ", "query": "q: "},
        {"item": "x" * 64},
        {"item": "x" * 65},
        {"x": ""},
    ],
    "rules": [
        {},
        {"where": {"price": {"lt": 50}}, "at_most": {"title": 2}, "diversity": 0.5},
        {"where": {"price": {"<": 50}}},
        {"where": []},
        {"at_most": {"title": 0}},
        {"at_most": {"": 1}},
        {"boost": [{"where": {"price": 11}, "by": 1}]},
        {"boost": [{"where": {"price": 11}}]},
        {"boost": [{"by": 1, "where": {"price": {"in": 5}}}]},
        {"diversity": 1.1},
        {"unknown": 1},
    ],
    "experiment": [
        {"name": "e", "arms": [{"name": "a", "share": 1}]},
        {"name": "e", "arms": []},
        {"name": "e", "arms": [{"name": "a", "share": 0}]},
        {"name": "e", "arms": [{"name": "a", "share": 0.6}, {"name": "b", "share": 0.5}]},
        {"name": "e", "arms": [{"name": "a", "share": 0.1}, {"name": "a", "share": 0.1}]},
        {"name": "e", "arms": [{"name": "rest", "share": 0.1}]},
        {"name": "E", "arms": [{"name": "a", "share": 0.1}]},
        {"name": "e", "arms": [{"name": "a", "share": 0.1, "exploration": {"epsilon": 2}}]},
        {"name": "e", "arms": [{"name": "a", "share": 0.1, "personalized": 0}]},
        {"name": "e"},
    ],
    "lineage.parent": [-1, 0, "0"],
    "files.golden.json.length": [-1, 2.5, "1"],
    "files.golden.json.sha256": ["", "A" * 64, "a" * 63],
}
"""Values of a manifest's fields, some right and some wrong, by path."""


def manifest_cases() -> CaseFile:
    """Return manifests: one field of the golden one set, removed or added, and other bytes."""
    base = json.loads((ROOT / BUNDLES["golden"] / "manifest.json").read_bytes())
    cases: list[dict[str, Any]] = []
    for bundle in BUNDLES:
        data = (ROOT / BUNDLES[bundle] / "manifest.json").read_bytes()
        cases.append({"bundle": bundle} | _manifest_fault(data))
    for path, values in (*FIELD_VALUES.items(), *VALUES.items()):
        cases += [_set(base, path.split("."), value) for value in values]
    cases += [_set(base, [name], None, remove=True) for name in base]
    for name in ("sizes", "files", "lineage"):
        cases += [_set(base, [name, inner], None, remove=True) for inner in base[name]]
    entry = base["files"]["golden.json"]
    cases += [_set(base, ["files", name], entry) for name in (*FILE_NAMES, "columns.safetensors")]
    for data in MANIFESTS.values():
        if len(data) < LONGEST:
            cases.append({"bytes": base64.b64encode(data).decode()} | _manifest_fault(data))
    about = "A manifest, and the error if it is none that the engine may open."
    shared = {"bundles": BUNDLES, "base": base}
    return CaseFile(about, shared, [case for case in cases if case])


def _set(base: dict[str, Any], path: list[str], value: Any, remove: bool = False) -> dict[str, Any]:
    """Return the case of a manifest with one field changed, {} for one that not all can read."""
    if path[:2] == ["files", "golden"]:
        path = ["files", "golden.json", path[-1]]
    changed = deepcopy(base)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    if remove:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    if isinstance(value, int) and abs(value) > WHOLE_NUMBERS:
        return {}
    case = {"path": path} | ({} if remove else {"value": value})
    return case | _manifest_fault(json.dumps(changed).encode())


def _manifest_fault(data: bytes) -> dict[str, str]:
    try:
        manifest = manifests.parse(data)
        parse_rules(manifest.rules)
    except BundleError as error:
        return {"error": str(error)}
    return {}


def bundle_cases() -> CaseFile:
    """Return damaged bundles: bytes, files and tensors of the golden one changed."""
    rng = Random(62)
    cases = [_case(lambda folder: None)]
    for edit in EDITS.values():
        cases += [_case(edit, reseal=True)]
    for name in sorted(path.name for path in (ROOT / BUNDLES["golden"]).iterdir()):
        for change in (lambda path: path.unlink(), lambda path: path.write_bytes(b"")):
            cases.append(_case(lambda folder, n=name, c=change: c(folder / n)))
        for reseal in (False, True):
            cases.append(_case(lambda folder, n=name: _cut(folder / n), reseal=reseal))
        for _ in range(6):
            place = rng.random()
            value = whole(rng, 1, 255)
            cases.append(_case(lambda folder, n=name, p=place, v=value: _flip(folder / n, p, v)))
    for name in ("items.safetensors", "policy.safetensors"):
        for _ in range(25):
            place, value = 0.3 * rng.random(), pick(rng, b'0129{}[],"xI\x00\xff')
            edit = lambda folder, n=name, p=place, v=value: _put(folder / n, p, v)  # noqa: E731
            cases.append(_case(edit, reseal=True))
    cases += [_case(lambda folder: (folder / "extra.txt").write_bytes(b"x") and None)]
    about = "The golden bundle with changes, and the errors of opening it without and with verify."
    return CaseFile(about, {"bundle": BUNDLES["golden"]}, [case for case in cases if case])


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path, place: float, value: int) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= value
    path.write_bytes(bytes(data))


def _put(path: Path, place: float, value: int) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] = value
    path.write_bytes(bytes(data))


def _case(edit: Callable[[Path], Any], reseal: bool = False) -> dict[str, Any]:
    """Return the case of an edited bundle, {} where the change is too long for the set."""
    source = ROOT / BUNDLES["golden"]
    with TemporaryDirectory() as directory:
        folder = Path(directory) / "bundle"
        shutil.copytree(source, folder)
        edit(folder)
        if reseal:
            _reseal(folder)
        changes = _changes(source, folder)
        if reseal:
            changes.pop("manifest.json", None)
        if len(json.dumps(changes)) > LONGEST:
            return {}
        opened = _opening_fault(folder, verify=False)
        verified = _opening_fault(folder, verify=True)
        case: dict[str, Any] = {"files": changes} | ({"reseal": True} if reseal else {})
        for name, fault in (("error", opened), ("verify_error", verified)):
            if fault is not None:
                case[name] = fault.replace(str(folder), "FOLDER")
        return case


def _reseal(folder: Path) -> None:
    """Write the lengths and hashes of the files into the manifest, whatever else it says."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name in manifest["files"]:
        data = (folder / name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        manifest["files"][name] = {"length": len(data), "sha256": digest}
    text = msgspec.json.format(json.dumps(manifest).encode(), indent=1) + b"\n"
    (folder / "manifest.json").write_bytes(text)


def _changes(source: Path, folder: Path) -> dict[str, Any]:
    """Return by name what became of the files: null if removed, patches [offset, hex], or all."""
    changes: dict[str, Any] = {}
    for name in sorted({path.name for path in (*source.iterdir(), *folder.iterdir())}):
        old = (source / name).read_bytes() if (source / name).exists() else None
        new = (folder / name).read_bytes() if (folder / name).exists() else None
        if new is None:
            changes[name] = None
        elif old is None or len(old) != len(new):
            changes[name] = {"base64": base64.b64encode(new).decode()}
        elif old != new:
            changes[name] = {"patches": _patches(old, new)}
    return changes


def _patches(old: bytes, new: bytes) -> list[tuple[int, str]]:
    patches: list[tuple[int, str]] = []
    start = None
    for i in range(len(old) + 1):
        differs = i < len(old) and old[i] != new[i]
        if differs and start is None:
            start = i
        elif not differs and start is not None:
            patches.append((start, new[start:i].hex()))
            start = None
    return patches


def _opening_fault(folder: Path, verify: bool) -> str | None:
    try:
        Scorer(Bundle.open(folder, verify=verify))
    except BundleError as error:
        return str(error)
    return None
