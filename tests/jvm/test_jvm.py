"""The read path in Kotlin passes the conformance set on the JVM: what docs/PORTING.md says is
enough to write it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
FILES = [
    *("philox", "uniforms", "hashes", "events", "states", "search"),
    *("slates-sequential", "read-path"),
]


@pytest.fixture(scope="module")
def jar(pytestconfig):
    """The compiled port, kept in pytest's cache: kotlinc takes half a minute."""
    missing = [name for name in ("java", "kotlinc") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"the JVM port needs {' and '.join(missing)}: apt-get install kotlin")
    sources = sorted(FOLDER.glob("*.kt"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    path = pytestconfig.cache.mkdir("jvm") / f"{digest[:16]}.jar"
    if not path.exists():
        unfinished = path.with_name(f"{os.getpid()}.jar")
        command = ["kotlinc", *sources, "-include-runtime", "-d", unfinished]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        unfinished.replace(path)
    return path


def test_the_read_path_in_kotlin_passes_the_conformance_set(jar):
    """Every case of every file of the read path, from Philox to the bytes of decisions."""
    command = ["java", "-jar", jar, ROOT, *FILES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = [line.split(": ") for line in done.stdout.splitlines()]
    assert [name for name, _ in counts] == FILES
    assert all(found.split(" of ")[0] == found.split(" of ")[1] for _, found in counts)


def test_the_port_is_short_and_needs_no_library():
    """A stranger reads it in an hour: 500 lines with JSON, none of them wider than 100."""
    port = [FOLDER / "Json.kt", FOLDER / "ReadPath.kt"]
    lines = [line for path in port for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) <= 500
    assert max(map(len, lines)) <= 100
    imports = [line for line in lines if line.startswith("import ")]
    assert all(line.split()[1].split(".")[0] in ("java", "kotlin") for line in imports)
