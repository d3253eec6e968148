"""Nothing of ours lets onnxruntime report to its maker: it writes a lasting id into the home folder
as soon as it is imported without the variable that forbids it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "bundle-1"

ENGINE = f"""
from sanderling import Engine
with Engine.open({str(GOLDEN)!r}) as engine:
    engine.recommend("anna", 3, context="rainy sunday")
"""
UPDATE = f"""
from pathlib import Path
from sanderling.bundle.reader import Bundle
from sanderling.ranking.golden_check import faults
faults(Bundle.open(Path({str(GOLDEN)!r})))
"""


def files_in_home(home: Path, code: str) -> list[str]:
    """Run code that loads onnxruntime in a process with a home of its own; return what is in it."""
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")}
    code += "\nimport sys, time; assert 'onnxruntime' in sys.modules; time.sleep(0.5)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]


def test_the_engine_leaves_nothing_in_the_home_folder(tmp_path):
    """A recommendation with a context, for which the encoder is loaded, writes nothing there."""
    assert files_in_home(tmp_path / "home", ENGINE) == []


def test_trying_an_update_leaves_nothing_in_the_home_folder(tmp_path):
    """What the child process of `update` does with a new bundle writes nothing there."""
    assert files_in_home(tmp_path / "home", UPDATE) == []


@pytest.mark.lab
@pytest.mark.parametrize("package", ["sanderling_quantize", "sanderling_trainer"])
def test_the_lab_leaves_nothing_in_the_home_folder(tmp_path, package):
    """Whatever imports onnxruntime after one of the lab's packages writes nothing there."""
    assert files_in_home(tmp_path / "home", f"import {package}, onnxruntime") == []
