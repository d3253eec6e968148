"""Opening a bundle: an intact one opens, any other raises `BundleError` that names the fault."""

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
from tests.support.malformed_bundles import EDITS, FIELD_VALUES, FILE_NAMES, MANIFESTS


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "good"
    write_bundle(folder, release=7)
    return folder


@pytest.fixture
def bundle(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "bundle"))


def test_a_checkpoint_in_place_of_a_bundle_is_named(tmp_path: Path) -> None:
    """The folder that training wrote is refused with what to do; another one without the advice."""
    with pytest.raises(BundleError, match=r"found no regular file of that name$"):
        Bundle.open(tmp_path)

    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BundleError, match=r"checkpoint: `sanderling quantize` it first$"):
        Bundle.open(tmp_path)


def test_a_bundle_reads_as_it_was_written(good: Path) -> None:
    """Manifest, records and ids are those that were written; unknown ids have no row."""
    opened = Bundle.open(good, verify=True)
    assert opened.manifest.release == 7
    assert [opened.record(row) for row in range(50)] == [record(row) for row in range(50)]
    assert list(opened.ids()) == [f"item-{row}" for row in range(50)]
    assert [opened.find(f"item-{row}") for row in range(50)] == list(range(50))
    assert [opened.find(item) for item in ("", "item-50", "item-07", "\ud800")] == [None] * 4


def test_the_same_content_gives_the_same_bytes(good: Path, tmp_path: Path) -> None:
    """A bundle is a function of its content: the same seed gives the same hashes."""
    assert write_bundle(tmp_path / "second", release=7).files == Bundle.open(good).manifest.files


def test_all_files_are_readable_by_everyone(bundle: Path) -> None:
    """All files of a finished bundle have mode 0644, whatever mode they were written with."""
    (bundle / "items.safetensors").chmod(0o600)
    reseal(bundle)
    modes = {path.name: stat.filemode(path.stat().st_mode) for path in bundle.iterdir()}
    assert modes == dict.fromkeys((*FILES, MANIFEST), "-rw-r--r--")


def test_golden_vectors_hold(good: Path) -> None:
    """The small bundle computes its golden vectors, so other tests may rely on it."""
    assert faults(Bundle.open(good)) == []


def test_hash_collisions_are_resolved(bundle: Path) -> None:
    """Two ids with one hash are distinguished by the ids in the catalog."""
    tensors = dict(load_file(bundle / "items.safetensors"))
    positions = {row: position for position, row in enumerate(tensors["id_row"].tolist())}
    hashes = tensors["id_hash"].copy()
    order = tensors["id_row"].copy()
    hashes[positions[3]] = id_hash("item-4")
    sort = np.argsort(hashes, kind="stable")
    save_file(
        {**tensors, "id_hash": hashes[sort], "id_row": order[sort]}, bundle / "items.safetensors"
    )
    reseal(bundle)
    assert Bundle.open(bundle).find("item-4") == 4


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    """A missing file raises an error that names it."""
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: expected a regular file"):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_length_is_refused(bundle: Path, name: str, change: int) -> None:
    """A file one byte short or long is refused without a full read."""
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[:-1] if change < 0 else content + b"\0")
    with pytest.raises(
        BundleError, match=f"{name}: expected {len(content)} bytes, found {len(content) + change}"
    ):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_by_verify(bundle: Path, name: str) -> None:
    """`verify` finds one flipped bit; opening without it succeeds or raises `BundleError`."""
    content = (bundle / name).read_bytes()
    for position in np.random.default_rng(0).integers(0, len(content), 20).tolist():
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        (bundle / name).write_bytes(flipped)
        with pytest.raises(BundleError, match=f"{name}: expected the SHA-256"):
            Bundle.open(bundle, verify=True)
        only_bundle_errors(bundle)


def only_bundle_errors(folder: Path) -> None:
    """Open a bundle that may be malformed; anything but `BundleError` fails the test."""
    with suppress(BundleError):
        Bundle.open(folder)


def reseal_and_verify(folder: Path) -> None:
    """Make the hashes right, so that only the content can be wrong, and verify."""
    reseal(folder)
    Bundle.open(folder, verify=True)


def test_truncated_files_never_crash_the_opening(bundle: Path) -> None:
    """Files cut anywhere, with right hashes, open or raise `BundleError`."""
    for name in FILES:
        content = (bundle / name).read_bytes()
        for length in {0, 1, 7, 8, 9, len(content) // 2, len(content) - 1}:
            (bundle / name).write_bytes(content[:length])
            with suppress(BundleError):
                reseal_and_verify(bundle)
        (bundle / name).write_bytes(content)


@pytest.mark.parametrize(
    "name", [".gitignore", "__init__.py", "model.pkl", "encoder.onnx.data", ".git"]
)
def test_an_unlisted_file_is_refused(bundle: Path, name: str) -> None:
    """A file that the manifest does not list is refused, even a hidden one."""
    (bundle / name).write_bytes(b"")
    with pytest.raises(BundleError, match="expected only the files of the manifest"):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", FILES)
def test_special_files_are_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    """A link, a folder or a pipe in place of a file is neither followed nor read."""
    path = bundle / name
    outside = tmp_path / "outside"
    path.rename(outside)
    makers: list[Callable[[], object]] = [
        lambda: path.symlink_to(outside),
        path.mkdir,
        lambda: os.mkfifo(path),
    ]
    for make in makers:
        make()
        with pytest.raises(BundleError, match=f"{name}: expected a regular file"):
            Bundle.open(bundle)
        path.rmdir() if path.is_dir() else path.unlink()


def test_special_manifests_are_refused(bundle: Path, tmp_path: Path) -> None:
    """A folder, a pipe or a link in place of the manifest is neither followed nor read."""
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


def test_a_folder_without_a_bundle_is_named(tmp_path: Path) -> None:
    """A folder without a bundle, and no folder at all, say where a bundle was expected."""
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(BundleError, match=f"expected a bundle with a {MANIFEST} in {folder}"):
            Bundle.open(folder)


@pytest.mark.parametrize("name", MANIFESTS)
def test_malformed_manifests_are_refused(bundle: Path, name: str) -> None:
    """A manifest that is not a manifest is refused, whatever else it is."""
    (bundle / MANIFEST).write_bytes(MANIFESTS[name])
    with pytest.raises(BundleError, match=MANIFEST):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, many in FIELD_VALUES.items() for value in many]
)
def test_wrong_field_values_are_refused(good: Path, field: str, value: Any) -> None:
    """Every field has its type and its range, and the error names the manifest."""
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
def test_numbers_out_of_range_are_refused(good: Path, text: bytes) -> None:
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
def test_a_missing_field_is_named(good: Path, field: str) -> None:
    """A required field that is missing raises an error that names it."""
    fields = msgspec.json.decode((good / MANIFEST).read_bytes())
    del fields[field]
    with pytest.raises(BundleError, match=field):
        manifests.parse(msgspec.json.encode(fields))


@pytest.mark.parametrize("name", FILE_NAMES)
def test_unknown_file_names_are_refused(good: Path, name: str) -> None:
    """Exactly the six known names must be listed: no path, no look-alike, no seventh file."""
    fields = msgspec.json.decode((good / MANIFEST).read_bytes())
    entry = fields["files"]["encoder.onnx"]
    for files in (
        {**fields["files"], name: entry},
        {**fields["files"], "encoder.onnx": None, name: entry},
    ):
        listed = {key: value for key, value in files.items() if value}
        with pytest.raises(BundleError, match="expected exactly the files"):
            manifests.parse(msgspec.json.encode({**fields, "files": listed}))


@pytest.mark.parametrize(
    "entry",
    [{"sha256": "A" * 64}, {"sha256": "0" * 40}, {"length": -1}, {"length": 1.5}, {"md5": ""}],
)
def test_malformed_file_entries_are_refused(good: Path, entry: dict[str, Any]) -> None:
    """A hash in capitals or of another algorithm, a wrong length and an extra field are refused."""
    fields = msgspec.json.decode((good / MANIFEST).read_bytes())
    fields["files"]["encoder.onnx"].update(entry)
    with pytest.raises(BundleError, match=r"encoder\.onnx|files"):
        manifests.parse(msgspec.json.encode(fields))


def test_a_manifest_over_the_limit_is_refused(good: Path) -> None:
    """A manifest over the limit is refused even when it is valid JSON."""
    content = (good / MANIFEST).read_bytes()
    with pytest.raises(BundleError, match=f"at most {MAX_MANIFEST_BYTES} bytes"):
        manifests.parse(content + b" " * MAX_MANIFEST_BYTES)


def test_a_bundle_for_a_later_engine_is_refused(bundle: Path) -> None:
    """The error says which engine is needed, however large its version number is."""
    fields = msgspec.json.decode((bundle / MANIFEST).read_bytes())
    for version in ("0.2.0", "99999999999999999999.0.0"):
        (bundle / MANIFEST).write_bytes(msgspec.json.encode({**fields, "min_engine": version}))
        with pytest.raises(BundleError, match=f"expected an engine of at least {version}"):
            Bundle.open(bundle)


def test_a_manifest_round_trips(good: Path) -> None:
    """Parsing and dumping a manifest changes no byte."""
    content = (good / MANIFEST).read_bytes()
    assert manifests.dump(manifests.parse(content)) == content


def test_files_of_another_bundle_are_refused(bundle: Path, tmp_path: Path) -> None:
    """The items of one release in the bundle of another are refused."""
    write_bundle(tmp_path / "other", seed=1)
    shutil.copyfile(tmp_path / "other" / "items.safetensors", bundle / "items.safetensors")
    with pytest.raises(BundleError, match=r"items\.safetensors"):
        Bundle.open(bundle, verify=True)


@pytest.mark.parametrize("name", EDITS)
def test_wrong_content_with_right_hashes_is_refused(bundle: Path, name: str) -> None:
    """`verify` refuses wrong content although the hashes are right, only with `BundleError`."""
    EDITS[name](bundle)
    with pytest.raises(BundleError):
        reseal_and_verify(bundle)
    only_bundle_errors(bundle)


def test_opening_reads_no_file_in_full(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening without `verify` hashes no file, so its cost does not grow with the bundle."""
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
