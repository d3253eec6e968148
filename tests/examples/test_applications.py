"""The applications in examples/ run on real data, in small; `make examples` runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.fetch import NO_DATA

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in ROOT.glob("examples/*/README.md") if path.parent.name in {
    "shop", "films", "news", "social", "service", "finance"
})  # fmt: skip


def code_lines(folder: Path) -> int:
    """Return how many lines of Python in a folder are neither empty nor comments."""
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return sum(bool(line) and not line.startswith("#") for line in lines)


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_application_is_short_and_says_its_result(folder):
    """At most 150 lines of code; the README names data, licence, baseline and the command."""
    assert code_lines(folder) <= 150
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("licence", f"examples/{folder.name}/{folder.name}.py", "baseline"):
        assert word.lower() in readme.lower(), word


@pytest.mark.examples
@pytest.mark.lab
@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_application_runs_in_small(folder, tmp_path):
    """`--small` runs the whole example and ends with its figures as one JSON object."""
    done = subprocess.run(
        [sys.executable, folder / f"{folder.name}.py", "--small", "--out", tmp_path / "out"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == NO_DATA:
        pytest.skip(done.stderr.strip().splitlines()[0])
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    assert {"sanderling", "baseline", "interval"} <= figures.keys()
