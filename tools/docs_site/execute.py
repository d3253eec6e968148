"""Executes the notebooks in docs/notebooks/ and stores what they show: `make notebooks`."""

from __future__ import annotations

import os
import tempfile

import nbformat
from nbclient import NotebookClient

from tools.docs_site.outside import ROOT

FOLDER = ROOT / "docs" / "notebooks"
TIMEOUT_S = 1200
"""Of a cell."""

KEPT = ("image/png", "text/plain")


def main() -> None:
    """Execute each notebook in a folder of its own; a cell that fails is an error."""
    os.environ.update(
        SANDERLING_CLONE=str(ROOT), MPLBACKEND="module://matplotlib_inline.backend_inline"
    )
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            resources = {"metadata": {"path": folder}}
            NotebookClient(notebook, timeout=TIMEOUT_S, resources=resources).execute()
        for cell in notebook.cells:
            cell.metadata = {}
            if cell.cell_type == "code":
                cell.outputs = [kept for kept in map(_small, cell.outputs) if kept is not None]
        notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(notebook, path)
        print(path.relative_to(ROOT))


def _small(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """Return an output without what only Jupyter shows; None for what went to stderr."""
    if output.get("name") == "stderr":
        return None
    if "data" in output:
        output.data = {kind: output.data[kind] for kind in KEPT if kind in output.data}
        output.metadata = {}
    return output


if __name__ == "__main__":
    main()
