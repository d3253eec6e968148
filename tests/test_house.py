"""Rules for the whole repository: cost of importing, sizes, test docstrings, documents."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sanderling.bundle import manifest
from sanderling.events import schema

ROOT = Path(__file__).parent.parent
TESTS = sorted(path for path in (ROOT / "tests").rglob("test_*.py"))
HEAVY = {
    "onnxruntime",
    "tokenizers",
    "numba",
    "torch",
    "transformers",
    "onnx",
    "pandas",
    "pyarrow",
    "tuf",
    "typer",
    "uvicorn",
    "httptools",
    "asyncio",
}


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after running `code`."""
    code += "; import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import sanderling", "from sanderling import Engine"])
def test_importing_the_package_loads_nothing_heavy(code):
    """Neither the package nor the engine imports onnxruntime, tokenizers, numba or the lab."""
    assert not loaded_by(code) & HEAVY


def test_importing_the_package_alone_does_not_even_load_numpy():
    """An app that only names the errors pays for nothing."""
    assert "numpy" not in loaded_by("import sanderling; sanderling.BundleError")


@pytest.mark.parametrize(
    "code", ["from sanderling_trainer import train", "from sanderling_quantize import quantize"]
)
def test_importing_the_functions_of_the_lab_does_not_load_torch(code):
    """Torch takes seconds: it is loaded when a function has checked what it was given."""
    assert not loaded_by(code) & HEAVY


def test_every_module_of_the_engine_imports_where_posix_is_missing():
    """No module needs `fcntl` or `resource` to be imported: Windows has neither."""
    code = """
import importlib, pkgutil, sys
sys.modules.update(fcntl=None, resource=None)
import sanderling
for module in pkgutil.walk_packages(sanderling.__path__, "sanderling."):
    skipped = ("sanderling.__main__", "sanderling.kernels.", "sanderling._pyinstaller.")
    if not module.name.startswith(skipped):
        importlib.import_module(module.name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_every_test_says_what_it_proves(path):
    """Each test function has a docstring that is a sentence."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            said = ast.get_docstring(node) or ""
            assert said.rstrip().endswith((".", "!", "?")), (
                f"{path.name}: {node.name}: expected a sentence"
            )


def imported_by(path: Path) -> set[str]:
    """Return the dotted names of the modules that a file imports and of what it takes from them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: expected absolute imports"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_test_module_has_a_name_of_its_own():
    """Folders of tests are no packages: pytest collects only one of two files of one name."""
    names = [path.name for path in TESTS]
    assert sorted(set(names)) == sorted(names)


def test_nobody_imports_a_test_module():
    """Tests and helpers import no test module; shared code lies in tests/support."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for name in imported_by(path):
            module = name.split(".")[:4]
            found = module[0] == "tests" and any(
                word.startswith("test_") or word == "conftest" for word in module
            )
            assert not found, (
                f"{path.relative_to(ROOT)}: expected no import of a test module, found {name}"
            )


def test_the_benchmarks_import_nothing_from_the_tests():
    """A benchmark runs without the tests' code; tests may import a benchmark to check it."""
    for path in sorted((ROOT / "bench").rglob("*.py")):
        found = sorted(name for name in imported_by(path) if name.split(".")[0] == "tests")
        assert not found, f"{path.relative_to(ROOT)}: expected no import from tests, found {found}"


def test_the_benchmarks_are_listed():
    """`python -m bench` names each benchmark with one line that describes it."""
    listed = subprocess.run(
        [sys.executable, "-m", "bench"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()[2:]
    names = sorted(path.stem for path in (ROOT / "bench").glob("[!_]*.py"))
    assert [line.split()[0] for line in listed] == names
    assert all(len(line.split()) > 3 for line in listed)


@pytest.mark.parametrize(
    ("document", "structs"),
    [
        (
            "EVENTS.md",
            [
                schema.Decision,
                schema.Outcome,
                schema.Observation,
                schema.Loss,
                schema.Slot,
                schema.ClockReading,
            ],
        ),
        (
            "BUNDLE.md",
            [
                manifest.Manifest,
                manifest.Sizes,
                manifest.Exploration,
                manifest.Lineage,
                manifest.FileEntry,
            ],
        ),
    ],
)
def test_the_documents_name_every_field_of_the_contract(document, structs):
    """No field of a wire struct is missing from the page that describes it."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    for struct in structs:
        for field in msgspec.structs.fields(struct):
            assert f"`{field.name}`" in text, (
                f"docs/{document}: expected `{field.name}` of {struct.__name__}"
            )


@pytest.mark.parametrize("part", ["engine", "quantize", "trainer", "bench", "tests", "tools"])
def test_files_and_functions_stay_short(part):
    """No file has more than 430 lines and no function more than 60, its docstring included."""
    for path in sorted((ROOT / part).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        n = len(text.splitlines())
        assert n <= 430, f"{path.relative_to(ROOT)}: expected at most 430 lines, found {n}"

        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                n = node.end_lineno - node.lineno + 1
                assert n <= 60, (
                    f"{path.relative_to(ROOT)}: {node.name}: expected at most 60 lines, found {n}"
                )


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("[!L]*.md")),
    ],
)
def test_the_documents_name_existing_tests_and_benchmarks(document):
    """Each file of the tests or the benchmarks that a document names exists."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:tests|bench)/[\w/]+\.py\b", text):
        assert (ROOT / name).is_file(), f"{document}: found {name}, which does not exist"


@pytest.mark.parametrize("part", ["engine", "quantize", "trainer"])
def test_every_distribution_brings_the_licence(part):
    """The text in each distribution's folder, from where its wheel takes it, is the project's."""
    assert (ROOT / part / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
