"""Collects what is loaded by name: the modules of child processes, and the kernels with the sources
by whose checksum they are found."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

hiddenimports = [
    *collect_submodules("sanderling", lambda name: not name.startswith("sanderling.kernels.")),
    "sanderling.kernels.loader",
]
datas = collect_data_files(
    "sanderling", includes=["kernels/*.so", "kernels/*.py"], include_py_files=True
)
