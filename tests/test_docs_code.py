"""The ```python blocks of documentation pages run, all of a page in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.bundles import write_bundle

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ["SEARCH.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """A reader can copy it: `bundle/` is a bundle in the folder where it runs."""
    write_bundle(tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.M | re.S)
    assert blocks
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)
