"""The TOML files that a bundle is built with."""

from __future__ import annotations

import pytest

from sanderling.bundle import manifest as manifests
from sanderling_quantize.manifest_files import ManifestFiles, read_rules
from tests.support.shops import write_shop

pytestmark = pytest.mark.lab


def written(folder, text):
    """Return the files of a bundle with these rules."""
    path = folder / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return ManifestFiles(rules=path)


def test_rules_come_into_the_manifest(tmp_path):
    """They are read as they are written, and the rest of the manifest stays."""
    bundle = write_shop(tmp_path / "bundle")
    text = "diversity = 0.2\n[where]\nstock = { gt = 0 }\n[at_most]\ngenre = 2\n"
    files = written(tmp_path, text)
    files.check()
    before = manifests.read(bundle)
    after = files.added_to(bundle, before)
    assert after.rules.where == {"stock": {"gt": 0}}
    assert (after.rules.at_most, after.rules.diversity) == ({"genre": 2}, 0.2)
    assert manifests.parse(manifests.dump(after)) == after
    assert after.sizes == before.sizes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[where]\nstok = { gt = 0 }", "near: 'stock'"),
        ("[where]\nstock = { gt = 99 }", "expected a rule that some items meet"),
        ("[[boost]]\nwhere = { gnre = 'jazz' }\nby = 1", "near: 'genre'"),
    ],
)
def test_rules_that_no_item_meets_are_refused(tmp_path, text, message):
    """The message names the file and what is wrong in it."""
    bundle = write_shop(tmp_path / "bundle")
    files = written(tmp_path, text)
    files.check()
    with pytest.raises(ValueError, match=f"rules.toml: .*{message}"):
        files.added_to(bundle, manifests.read(bundle))


@pytest.mark.parametrize("text", ["where = 3", "=", "pin = 1", "[where]\nstock = { above = 1 }"])
def test_a_file_that_is_no_rules_is_refused_early(tmp_path, text):
    """One message says what is expected."""
    path = written(tmp_path, text).rules
    with pytest.raises(ValueError, match=r"rules\.toml: expected `where`, `at_most`, `boost` or"):
        read_rules(path)
