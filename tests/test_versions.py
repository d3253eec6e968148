"""All parts have one version number."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_all_parts_have_one_version():
    """The three distributions, the npm package with its lock, the citation and the engine's own."""
    found = {
        part: tomllib.loads((ROOT / part / "pyproject.toml").read_text())["project"]["version"]
        for part in ("engine", "quantize", "trainer")
    }
    for name in ("package.json", "package-lock.json"):
        found[name] = json.loads((ROOT / "engine/js" / name).read_text())["version"]
    for name, pattern in {
        "CITATION.cff": r"^version: (\S+)$",
        "engine/js/src/version.ts": r'"(\d+\.\d+\.\d+)"',
        "engine/sanderling/version.py": r'"(\d+\.\d+\.\d+)"',
    }.items():
        match = re.search(pattern, (ROOT / name).read_text(), re.MULTILINE)
        found[name] = match[1] if match else "none"
    assert len(set(found.values())) == 1, found
