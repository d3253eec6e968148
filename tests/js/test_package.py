"""The JavaScript package: it compiles in strict mode, and each of its test files passes in Node."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.javascript import NODE, PACKAGE, ROOT, needs_node

SOURCES = sorted(
    path for part in ("src", "page", "test", "bench") for path in (PACKAGE / part).rglob("*.ts")
)
TESTS = [path for path in SOURCES if path.name.endswith(".test.ts")]


def name_of(path: Path) -> str:
    """Return a source's path within the package."""
    return path.relative_to(PACKAGE).as_posix()


@needs_node
@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_the_tests_of_the_package_pass_in_node(compiled, path):
    """Each file of tests passes under Node's own runner."""
    assert NODE is not None
    script = (compiled / name_of(path)).with_suffix(".js")
    settings = {**os.environ, "NODE_OPTIONS": ""}
    done = subprocess.run(
        [NODE, "--test", "--test-reporter=spec", str(script)],
        cwd=PACKAGE,
        env=settings,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


CONTROL = r"(?:\} )?(?:else|if|for|while|switch|do|try|catch)\b"
FUNCTION = re.compile(rf"^( *)(?!{CONTROL})\S.*[)>\w\]] \{{$")
DATA = re.compile(r"^ *(?:export )?(?:abstract )?(?:class|interface|enum|type|namespace|test)\b")


def long_functions(lines: list[str]) -> list[str]:
    """Return the first lines of functions of more than 60 lines, found by their indentation."""
    found = []
    for start, line in enumerate(lines):
        opened = FUNCTION.match(line)
        if not opened or DATA.match(line):
            continue
        end = next(i for i in range(start, len(lines)) if lines[i].startswith(opened[1] + "}"))
        if end - start + 1 > 60:
            found.append(line.strip())
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_sources_stay_short(path):
    """No file has more than 430 lines, no line more than 100 characters, no function more than 60
    lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 430
    assert [line for line in lines if len(line) > 100] == []
    assert long_functions(lines) == []


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_every_test_of_the_package_says_what_it_proves(path):
    """The name of each test is a sentence."""
    names = re.findall(r"^\s*test\(\s*([\"'`])(.+?)\1,", path.read_text(encoding="utf-8"), re.M)
    assert names
    assert [name for _, name in names if not name.endswith((".", "!", "?"))] == []


def test_the_package_brings_the_licence():
    """The text in the package's folder is the project's."""
    assert (PACKAGE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


NODE_MODULE = re.compile(r"[\"'](node:[^\"']+)[\"']")
RELATIVE = re.compile(r"(?:from|import\()\s*\"(\.[^\"]+)\"")


def test_bundlers_for_browsers_are_told_of_every_module_of_node():
    """What the entry for browsers reaches of Node is in the package's field `browser`, without
    which esbuild stops.
    """
    seen: set[Path] = set()
    waiting = [PACKAGE / "src" / "index.ts"]
    found: set[str] = set()
    while waiting:
        path = waiting.pop().resolve()
        if path in seen:
            continue
        seen.add(path)
        text = path.read_text(encoding="utf-8")
        found.update(NODE_MODULE.findall(text))
        waiting += [path.parent / name.replace(".js", ".ts") for name in RELATIVE.findall(text)]
    manifest = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert len(seen) > 50
    assert found == set(manifest["browser"])


@needs_node
def test_the_published_package_has_what_was_built_of_the_sources_alone(tmp_path):
    """`npm pack` builds a fresh clone, and takes no test, no TypeScript source and no file of a
    developer.
    """
    made = shutil.ignore_patterns("dist", "node_modules")
    clone = shutil.copytree(PACKAGE, tmp_path / "js", ignore=made)
    (clone / "node_modules").symlink_to(PACKAGE / "node_modules")
    command = ["npm", "pack", "--json", "--offline"]
    done = subprocess.run(
        command, cwd=clone, capture_output=True, text=True, check=True, timeout=240
    )
    names = set(re.findall(r'"path": "([^"]+)"', done.stdout))
    assert {"package.json", "LICENSE", "dist/src/index.js", "dist/src/index.d.ts"} <= names
    assert {"wasm/sanderling.wasm", "dist/sanderling.js"} <= names
    built = {name for name in names if name.startswith("dist/") and "dist/src/" not in name}
    assert built == {"dist/sanderling.js"}
    assert [name for name in names if re.search(r"(?<!\.d)\.ts$", name)] == []
