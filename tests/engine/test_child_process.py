"""The engine's child processes: what they run, and how a frozen app starts them."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sanderling import run_child
from sanderling._pyinstaller import hook_dirs
from sanderling.runtime.child_process import CHILD_MODULES
from tests.support.bundles import write_bundle

FROZEN = """
import sys
import sanderling
if sys.argv[1:2] == ["--sanderling-child"]:
    sanderling.run_child(sys.argv[2:])
    sys.exit()
sys.frozen = True
command = [sys.executable, __file__, "--sanderling-child"] if sys.argv[2:] else None
try:
    sanderling.Engine.open(sys.argv[1], verify=True, child_command=command).close()
except sanderling.BundleError as error:
    sys.exit(str(error))
"""


def test_a_frozen_app_starts_its_children_by_its_own_command(tmp_path):
    """Frozen, an app is told to give `child_command`; with it the child does its work and ends."""
    write_bundle(tmp_path / "bundle")
    (tmp_path / "app.py").write_text(FROZEN)
    command = [sys.executable, tmp_path / "app.py", tmp_path / "bundle"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "this app is frozen" in done.stderr
    done = subprocess.run([*command, "own"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_pyinstaller_finds_the_hook():
    """The folder that the entry point names has the hook, and the modules of children exist."""
    [folder] = hook_dirs()
    assert (Path(folder) / "hook-sanderling.py").is_file()
    assert all(find_spec(name) for name in CHILD_MODULES)


def test_a_child_runs_only_modules_of_the_engine():
    """`run_child` refuses what no engine passes to it."""
    for arguments in ([], ["os"], ["sanderling.releases.probe_worker", "more"]):
        with pytest.raises(ValueError, match="expected one of sanderling"):
            run_child(arguments)
