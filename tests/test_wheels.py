"""The wheels: which files each has, for which machines pip takes it, and what its kernels need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

ENGINE = Path(__file__).parent.parent / "engine"
KERNELS = Path("sanderling/kernels")
BUILT = sorted((ENGINE / KERNELS).glob("*.so"))
MACHINES = {"x86_64": ["avx2", "plain"], "aarch64": ["plain"]}


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Path:
    """The engine's sources beside kernels of both machines, which are empty files."""
    folder = tmp_path_factory.mktemp("wheels") / "engine"
    shutil.copytree(
        ENGINE, folder, ignore=shutil.ignore_patterns("*.so", "__pycache__", "node_modules")
    )
    for machine, kinds in MACHINES.items():
        for kind in kinds:
            (folder / KERNELS / f"linux-{machine}-{kind}-00000000.so").touch()
    return folder


def build(engine: Path, machine: str = "") -> subprocess.CompletedProcess[str]:
    """Build a wheel into the folder `dist` beside the sources."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "../dist"]
    settings = {**os.environ, "SANDERLING_WHEEL_MACHINE": machine}
    return subprocess.run(command, cwd=engine, env=settings, capture_output=True, text=True)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", ""])
def test_a_wheel_has_the_kernels_of_the_machine_in_its_tag(engine, machine):
    """Its tag admits glibc 2.17 on that machine; without a machine it is pure and has none."""
    done = build(engine, machine)
    assert done.returncode == 0, done.stderr
    platform = f"manylinux_2_17_{machine}" if machine else "any"
    [wheel] = (engine.parent / "dist").glob(f"sanderling-*-{platform}.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [name for name in names if name.endswith("/WHEEL")]
        text = archive.read(metadata).decode()
    kernels = [str(KERNELS / f"linux-{machine}-{k}-00000000.so") for k in MACHINES.get(machine, [])]
    _, _, _, tags = parse_wheel_filename(wheel.name)

    assert sorted(name for name in names if name.endswith(".so")) == kernels
    assert tags == {Tag("py3", "none", platform)}
    assert f"Root-Is-Purelib: {'false' if machine else 'true'}" in text
    assert f"Tag: py3-none-{platform}" in text
    assert "sanderling/kernels/loader.py" in names
    assert [name for name in names if not re.match(r"sanderling(-[\d.]+\.dist-info)?/", name)] == []


def test_the_first_look_runs_from_the_wheel(engine):
    """`demo --tiny` finds its bundle in an unpacked pure wheel, with nothing of the lab beside."""
    assert build(engine).returncode == 0
    [wheel] = (engine.parent / "dist").glob("sanderling-*-any.whl")
    installed = engine.parent / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    code = "from sanderling.cli.tiny import show; show(as_json=False)"
    settings = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed,
        env=settings,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert str(installed) in done.stdout


def test_a_wheel_without_the_kernels_asked_for_is_refused(engine):
    """The build fails and names the command that compiles them."""
    done = build(engine, "riscv64")
    assert done.returncode != 0
    assert "python -m sanderling.kernels.build --machine riscv64" in done.stderr


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf")
@pytest.mark.parametrize("library", BUILT, ids=lambda path: path.name)
def test_kernels_need_nothing_of_the_c_library_but_memset(library):
    """They name no other library and no version of glibc, so the tag's 2.17 is true."""
    command = ["readelf", "--wide", "--dynamic", "--dyn-syms", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    undefined = [line.split() for line in done.stdout.splitlines() if " UND " in line]

    assert "(NEEDED)" not in done.stdout
    assert {line[7] for line in undefined if len(line) > 7} <= {"memset"}
