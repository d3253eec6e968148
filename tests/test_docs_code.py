"""The code on pages of the documentation runs as it stands there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from sanderling.cli.tiny import BUNDLE

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page",
    [
        "ATTRIBUTES.md",
        "EXPERIMENTS.md",
        "LANGUAGES.md",
        "PORTING.md",
        "REASONS.md",
        "RULES.md",
        "SEARCH.md",
    ],
)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """All blocks of a page, in their order and one namespace, beside the tiny bundle."""
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert blocks
    names: dict[str, Any] = {}
    try:
        for block in blocks:
            # Faults are shown at their line of the page.
            line = text.count("\n", 0, block.start(1))
            exec(compile("\n" * line + block[1], page, "exec"), names)
    finally:
        if "engine" in names:
            names["engine"].close()
