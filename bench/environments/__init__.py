"""Virtual environments for peers, so that their packages are never dependencies of ours."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def interpreter_of(name: str, packages: Sequence[str], ours: Sequence[str] = ()) -> Path:
    """Return the python of the environment in the folder `name` of the checkout.

    It is created with these packages if there is none. It also sees the packages installed beside
    the benchmark, and the folders `ours` of the checkout.
    """
    home = ROOT / name
    interpreter = home / "bin" / "python"
    if not interpreter.exists():
        venv.create(home, with_pip=True)
        command = [
            str(interpreter),
            "-m",
            "pip",
            "install",
            "-q",
            "-c",
            str(ROOT / "constraints.txt"),
            *packages,
        ]
        subprocess.run(command, check=True, stdout=sys.stderr)
    paths = [sysconfig.get_path("purelib"), *(str(ROOT / part) for part in ours)]
    next(home.glob("lib/python*/site-packages")).joinpath("project.pth").write_text(
        "\n".join(paths) + "\n"
    )
    return interpreter
