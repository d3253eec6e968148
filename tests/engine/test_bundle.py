"""Opening a bundle: a whole one opens, and every other one is a `BundleError` that names the fault."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sanderling.bundle import manifest as manifests
from sanderling.bundle.manifest import FILES, MANIFEST, MAX_MANIFEST_BYTES, Manifest
from sanderling.bundle.reader import Bundle, id_hash
from sanderling.errors import BundleError
from sanderling.ranking.golden_check import faults
from tests.support.bundles import record, reseal, write_bundle


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "good"
    write_bundle(folder, release=7)
    return folder


@pytest.fixture
def bundle(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "bundle"))


def test_round_trip(good: Path) -> None:
    """What was written is what is read: the manifest, every record, every id, and nothing for an unknown id."""
    opened = Bundle.open(good, verify=True)
    assert opened.manifest.release == 7
    assert [opened.record(row) for row in range(50)] == [record(row) for row in range(50)]
    assert list(opened.ids()) == [f"item-{row}" for row in range(50)]
    assert [opened.find(f"item-{row}") for row in range(50)] == list(range(50))
    assert [opened.find(item) for item in ("", "item-50", "item-07", "\ud800")] == [None] * 4


def test_same_seed_same_bytes(good: Path, tmp_path: Path) -> None:
    """A bundle is a function of its contents: the same seed gives the same hashes."""
    assert write_bundle(tmp_path / "again", release=7).files == Bundle.open(good).manifest.files


def test_everyone_may_read(bundle: Path) -> None:
    """All files of a sealed bundle have mode 0644, whatever wrote them: the reader need not be the writer."""
    (bundle / "items.safetensors").chmod(0o600)
    reseal(bundle)
    assert {
        path.name: stat.filemode(path.stat().st_mode) for path in bundle.iterdir()
    } == dict.fromkeys((*FILES, MANIFEST), "-rw-r--r--")


def test_golden_vectors_hold(good: Path) -> None:
    """The small bundle computes what it says that it computes, so other tests may rely on it."""
    assert faults(Bundle.open(good)) == []


def test_hash_collisions_are_resolved(bundle: Path) -> None:
    """Two ids with one hash are told apart by the catalogue."""
    tensors = dict(load_file(bundle / "items.safetensors"))
    rows = {row: at for at, row in enumerate(tensors["id_row"].tolist())}
    hashes, order = tensors["id_hash"].copy(), tensors["id_row"].copy()
    hashes[rows[3]] = id_hash("item-4")
    sort = np.argsort(hashes, kind="stable")
    save_file(
        {**tensors, "id_hash": hashes[sort], "id_row": order[sort]}, bundle / "items.safetensors"
    )
    reseal(bundle)
    assert Bundle.open(bundle).find("item-4") == 4


@pytest.mark.parametrize("name", FILES)
def test_missing_file(bundle: Path, name: str) -> None:
    """A listed file that is absent is named."""
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: expected a plain file"):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [-1, 1])
def test_length_off_by_one(bundle: Path, name: str, change: int) -> None:
    """A file one byte short or long is refused without a full read."""
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[:-1] if change < 0 else content + b"\0")
    with pytest.raises(
        BundleError, match=f"{name}: expected {len(content)} bytes, found {len(content) + change}"
    ):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", FILES)
def test_flipped_bit(bundle: Path, name: str) -> None:
    """One flipped bit anywhere in a file is found by `verify`; a plain opening never fails otherwise than expected."""
    content = (bundle / name).read_bytes()
    for at in np.random.default_rng(0).integers(0, len(content), 20).tolist():
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        (bundle / name).write_bytes(flipped)
        with pytest.raises(BundleError, match=f"{name}: expected the SHA-256"):
            Bundle.open(bundle, verify=True)
        only_bundle_errors(bundle)


def only_bundle_errors(folder: Path) -> None:
    with suppress(BundleError):
        Bundle.open(folder)


def seal_and_verify(folder: Path) -> None:
    reseal(folder)
    Bundle.open(folder, verify=True)


def test_truncated_everywhere(bundle: Path) -> None:
    """Files cut anywhere and sealed as if they were right are refused or opened, and never crash the opening."""
    for name in FILES:
        content = (bundle / name).read_bytes()
        for length in {0, 1, 7, 8, 9, len(content) // 2, len(content) - 1}:
            (bundle / name).write_bytes(content[:length])
            with suppress(BundleError):
                seal_and_verify(bundle)
        (bundle / name).write_bytes(content)


@pytest.mark.parametrize(
    "name", [".gitignore", "__init__.py", "model.pkl", "encoder.onnx.data", ".git"]
)
def test_extra_file(bundle: Path, name: str) -> None:
    """A file that the manifest does not list is refused, hidden ones too."""
    (bundle / name).write_bytes(b"")
    with pytest.raises(BundleError, match="expected only the files of the manifest"):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", FILES)
def test_special_files(bundle: Path, tmp_path: Path, name: str) -> None:
    """A link, a folder or a pipe in a file's place is refused without following, and without waiting."""
    path, outside = bundle / name, tmp_path / "outside"
    path.rename(outside)
    makers: list[Callable[[], object]] = [
        lambda: path.symlink_to(outside),
        path.mkdir,
        lambda: os.mkfifo(path),
    ]
    for make in makers:
        make()
        with pytest.raises(BundleError, match=f"{name}: expected a plain file"):
            Bundle.open(bundle)
        path.rmdir() if path.is_dir() else path.unlink()


def test_special_manifests(bundle: Path, tmp_path: Path) -> None:
    """A folder, a pipe or a link in the manifest's place is refused without waiting."""
    path = bundle / MANIFEST
    path.rename(tmp_path / MANIFEST)
    makers: list[Callable[[], object]] = [
        path.mkdir,
        lambda: path.symlink_to(tmp_path / "gone"),
        lambda: os.mkfifo(path),
    ]
    for make in makers:
        make()
        with pytest.raises(BundleError):
            Bundle.open(bundle)
        path.rmdir() if path.is_dir() else path.unlink()


def test_nothing_there(tmp_path: Path) -> None:
    """A folder without a bundle, and no folder at all, say where a bundle was expected."""
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(BundleError, match=f"expected a bundle with a {MANIFEST} in {folder}"):
            Bundle.open(folder)


RAW: dict[str, bytes] = {
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


@pytest.mark.parametrize("name", RAW)
def test_hostile_manifest_bytes(bundle: Path, name: str) -> None:
    """A manifest that is no manifest is refused, whatever else it is."""
    (bundle / MANIFEST).write_bytes(RAW[name])
    with pytest.raises(BundleError, match=MANIFEST):
        Bundle.open(bundle)


BAD_VALUES: dict[str, list[Any]] = {
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


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, many in BAD_VALUES.items() for value in many]
)
def test_bad_values(good: Path, field: str, value: Any) -> None:
    """Every field has its type and its range, and the refusal says where."""
    fields = msgspec.json.decode((good / MANIFEST).read_bytes())
    with pytest.raises(BundleError, match=MANIFEST):
        manifests.parse(msgspec.json.encode({**fields, field: value}))


@pytest.mark.parametrize(
    "text",
    [
        b'"release": NaN',
        b'"release": 1e999',
        b'"release": ' + b"9" * 5000,
        b'"created": Infinity',
        b'"release": 7,,',
    ],
)
def test_bad_numbers(good: Path, text: bytes) -> None:
    """NaN, infinity and numbers of thousands of digits are refused."""
    content = msgspec.json.encode(msgspec.json.decode((good / MANIFEST).read_bytes()))
    key = text.split(b":")[0]
    start = content.index(key)
    stop = content.index(b",", start)
    with pytest.raises(BundleError, match=MANIFEST):
        manifests.parse(content[:start] + text + content[stop:])


@pytest.mark.parametrize(
    "field", ["app", "release", "created", "min_engine", "sizes", "files", "kinds", "lineage"]
)
def test_missing_field(good: Path, field: str) -> None:
    """A required field that is missing is named."""
    fields = msgspec.json.decode((good / MANIFEST).read_bytes())
    del fields[field]
    with pytest.raises(BundleError, match=field):
        manifests.parse(msgspec.json.encode(fields))


NAMES = [
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


@pytest.mark.parametrize("name", NAMES)
def test_bad_file_names(good: Path, name: str) -> None:
    """Only the six known names may be listed: no path, no look-alike, no seventh file, and none left out."""
    fields = msgspec.json.decode((good / MANIFEST).read_bytes())
    entry = fields["files"]["encoder.onnx"]
    for files in (
        {**fields["files"], name: entry},
        {**fields["files"], "encoder.onnx": None, name: entry},
    ):
        kept = {key: value for key, value in files.items() if value}
        with pytest.raises(BundleError, match="expected exactly the files"):
            manifests.parse(msgspec.json.encode({**fields, "files": kept}))


@pytest.mark.parametrize(
    "entry",
    [{"sha256": "A" * 64}, {"sha256": "0" * 40}, {"length": -1}, {"length": 1.5}, {"md5": ""}],
)
def test_bad_file_entries(good: Path, entry: dict[str, Any]) -> None:
    """A hash in capitals or of another algorithm, a length that is none, and another field are refused."""
    fields = msgspec.json.decode((good / MANIFEST).read_bytes())
    fields["files"]["encoder.onnx"].update(entry)
    with pytest.raises(BundleError, match=r"encoder\.onnx|files"):
        manifests.parse(msgspec.json.encode(fields))


def test_manifest_size_limit(good: Path) -> None:
    """A manifest over the limit is refused even when it is valid JSON."""
    content = (good / MANIFEST).read_bytes()
    with pytest.raises(BundleError, match=f"at most {MAX_MANIFEST_BYTES} bytes"):
        manifests.parse(content + b" " * MAX_MANIFEST_BYTES)


def test_future_engine(bundle: Path) -> None:
    """A bundle for a later engine says which engine it needs, and a number of any size is only a number."""
    fields = msgspec.json.decode((bundle / MANIFEST).read_bytes())
    for version in ("0.2.0", "99999999999999999999.0.0"):
        (bundle / MANIFEST).write_bytes(msgspec.json.encode({**fields, "min_engine": version}))
        with pytest.raises(BundleError, match=f"expected an engine of at least {version}"):
            Bundle.open(bundle)


def test_manifest_round_trip(good: Path) -> None:
    """Reading a manifest and writing it again changes no byte."""
    content = (good / MANIFEST).read_bytes()
    assert manifests.dump(manifests.parse(content)) == content


def test_mixed_bundles(bundle: Path, tmp_path: Path) -> None:
    """The items of one release in the bundle of another are refused."""
    write_bundle(tmp_path / "other", seed=1)
    shutil.copyfile(tmp_path / "other" / "items.safetensors", bundle / "items.safetensors")
    with pytest.raises(BundleError, match=r"items\.safetensors"):
        Bundle.open(bundle, verify=True)


def change(
    name: str, tensor: str, edit: Callable[[np.ndarray], np.ndarray | None]
) -> Callable[[Path], None]:
    """Return an attack that edits one tensor; None removes it."""

    def attack(folder: Path) -> None:
        tensors = {key: value.copy() for key, value in load_file(folder / name).items()}
        edited = edit(tensors.pop(tensor))
        save_file(tensors if edited is None else {**tensors, tensor: edited}, folder / name)

    return attack


def put(value: float, at: Any = 0) -> Callable[[np.ndarray], np.ndarray]:
    """Return an edit that sets one element."""

    def edit(tensor: np.ndarray) -> np.ndarray:
        tensor[at] = value
        return tensor

    return edit


def rewrite(old: bytes, new: bytes) -> Callable[[Path], None]:
    """Return an attack that replaces the first occurrence of some bytes of the catalogue; the length must stay."""

    def attack(folder: Path) -> None:
        assert len(old) == len(new)
        content = (folder / "catalog.jsonl").read_bytes()
        assert old in content
        (folder / "catalog.jsonl").write_bytes(content.replace(old, new, 1))

    return attack


ITEMS, POLICY = "items.safetensors", "policy.safetensors"
SEALED_ATTACKS: dict[str, Callable[[Path], None]] = {
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
    "catalogue empty": lambda folder: (folder / "catalog.jsonl").write_bytes(b"") and None,
    "catalogue not json": rewrite(b'{"id":"item-0"', b"{'id':'item-0'"),
    "catalogue invalid utf-8": rewrite(b'"red trail', b'"\xff\xfe@ trail'),
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


@pytest.mark.parametrize("name", SEALED_ATTACKS)
def test_sealed_but_wrong(bundle: Path, name: str) -> None:
    """A bundle whose hashes are right and whose content is not is refused by `verify`, and only with `BundleError`."""
    SEALED_ATTACKS[name](bundle)
    with pytest.raises(BundleError):
        seal_and_verify(bundle)
    only_bundle_errors(bundle)


def test_opening_reads_no_file_in_full(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening without `verify` hashes nothing, so its cost does not grow with the bundle."""
    monkeypatch.setattr(
        "sanderling.bundle.reader.file_hash", lambda path: pytest.fail("a file was read in full")
    )
    Bundle.open(good)


def test_write_bundle_takes_manifest_fields(tmp_path: Path) -> None:
    """Other tests may set any field of the manifest and any size."""
    manifest = write_bundle(
        tmp_path / "b", release=3, items=5, dim=12, state=4, app="other", kinds=["only"]
    )
    assert isinstance(manifest, Manifest)
    assert (manifest.app, manifest.sizes.dim, manifest.kinds) == ("other", 12, ["only"])
    assert faults(Bundle.open(tmp_path / "b", verify=True)) == []
