"""The notebooks are stored as they were executed, small, and become pages of the site."""

from __future__ import annotations

import ast
import json

import pytest

from tests.support.doc_blocks import ROOT
from tools.docs_site.notebooks import page_of

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_was_executed_and_is_small(path):
    """Each cell of code parses and has run, in order, without an error; `make notebooks` runs them
    anew.
    """
    cells = [
        cell
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        ast.parse("".join(cell["source"]))
        assert all(output["output_type"] != "error" for output in cell["outputs"])
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_becomes_a_page(path):
    """The page has the notebook's title, its code, and a picture for each that it drew."""
    text, pictures = page_of(path)
    assert text.startswith("# ")
    assert "```python\n" in text
    assert pictures
    assert all(f"]({name})" in text for name in pictures)
