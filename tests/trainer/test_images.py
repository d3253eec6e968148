"""What the images copy and install: it exists, is locked with hashes, and is what was tested."""

from __future__ import annotations

import fnmatch
import os
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = ["Dockerfile", "lab.Dockerfile"]
EXTRAS = {"engine": {"text", "jit", "update", "cli"}, "quantize": {"cpu"}, "trainer": {"minilm"}}
OURS = {"sanderling", "sanderling-quantize", "sanderling-trainer"}


def versions(path: Path) -> dict[str, str]:
    """Return the pinned version of each package in a file of constraints or requirements."""
    pins = re.findall(r"^([\w.-]+)==([\w.+]+)", path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def needed_by_the_lab() -> set[str]:
    """Return the packages that the three distributions name for the lab's image."""
    needed: list[str] = []
    for folder, extras in EXTRAS.items():
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        needed += project["dependencies"]
        for extra in extras:
            needed += project["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(text).name) for text in needed} - OURS


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_the_image_has_what_it_copies(dockerfile):
    """Each source is let through by .dockerignore, and exists unless `make wheel` makes it."""
    let_through = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copies = re.findall(r"^COPY (.+) \S+$", (DEPLOY / dockerfile).read_text(), re.MULTILINE)
    sources = " ".join(copies).split()

    assert "dist" in sources
    assert "dist/*.whl" in let_through
    for source in set(sources) - {"dist"}:
        assert (ROOT / source).is_file(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in let_through), source
    assert os.access(DEPLOY / "nightly.sh", os.X_OK)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_installs_nothing_without_a_hash(dockerfile):
    """Each `pip install` checks hashes, or takes the wheels of `dist` and asks no index."""
    text = (DEPLOY / dockerfile).read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install [^&\n]+", text)

    assert len(installs) >= 2
    for install in installs:
        if "--require-hashes" not in install:
            assert "--no-deps --no-index --find-links dist sanderling" in install


@pytest.mark.parametrize("image", ["collector", "lab", "torch"])
def test_the_requirements_are_those_that_were_tested(image):
    """Each has hashes and the version of constraints.txt; none belongs to CUDA."""
    path = DEPLOY / f"requirements-{image}.txt"
    entries = re.split(r"^(?=[\w.-]+==)", path.read_text(), flags=re.MULTILINE)[1:]
    tested = versions(ROOT / "constraints.txt")
    pinned = versions(path)

    assert len(entries) == len(pinned) > 0
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    for name, version in pinned.items():
        assert version.split("+")[0] == tested[name], f"{name}: run make lock"
    assert not [name for name in pinned if re.match(r"nvidia|cuda|triton", name)]


def test_the_lab_has_all_that_its_distributions_name():
    """A dependency that is added to one of them without `make lock` is noticed."""
    lab = versions(DEPLOY / "requirements-lab.txt") | versions(DEPLOY / "requirements-torch.txt")
    assert needed_by_the_lab() <= lab.keys()
