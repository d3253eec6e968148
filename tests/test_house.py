"""The house: what importing costs, what every test says, and that the contract's words stand in its documents."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sanderling.contract import events, manifest

ROOT = Path(__file__).parent.parent
TESTS = sorted(path for path in (ROOT / "tests").rglob("test_*.py"))
HEAVY = {"onnxruntime", "tokenizers", "numba", "torch", "transformers", "onnx", "pandas", "pyarrow", "tuf", "typer"}


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after running `code`."""
    code += "; import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import sanderling", "from sanderling import Engine"])
def test_importing_the_face_loads_nothing_heavy(code):
    """Neither the package nor the engine pulls in onnxruntime, tokenizers, numba or anything of the lab."""
    assert not loaded_by(code) & HEAVY


def test_importing_the_package_alone_does_not_even_load_numpy():
    """An app that only names the errors pays for nothing."""
    assert "numpy" not in loaded_by("import sanderling; sanderling.BundleError")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_every_test_says_what_it_proves(path):
    """Each test function has a docstring that is a sentence."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            said = ast.get_docstring(node) or ""
            assert said.rstrip().endswith((".", "!", "?")), f"{path.name}: {node.name}: expected a sentence"


@pytest.mark.parametrize(
    ("document", "structs"),
    [
        ("EVENTS.md", [events.Decision, events.Outcome, events.Observation, events.Loss, events.Slot, events.Clock]),
        ("BUNDLE.md", [manifest.Manifest, manifest.Sizes, manifest.Exploration, manifest.Lineage, manifest.FileEntry]),
    ],
)
def test_the_documents_name_every_field_of_the_contract(document, structs):
    """No field of a wire struct is missing from the page that describes it."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    for struct in structs:
        for field in msgspec.structs.fields(struct):
            assert f"`{field.name}`" in text, f"docs/{document}: expected `{field.name}` of {struct.__name__}"
