"""Collects what is loaded by name: the modules of child processes, and the kernels with the sources
by whose checksum they are found."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_data_files, collect_dynamic_libs, collect_submodules

LEFT_OUT = ("sanderling.cli", "sanderling.kernels.", "sanderling._pyinstaller")

hiddenimports = [
    *collect_submodules("sanderling", lambda name: not name.startswith(LEFT_OUT)),
    "sanderling.kernels.loader",
]
binaries = collect_dynamic_libs("sanderling", search_patterns=["*.so"])
datas = collect_data_files("sanderling", includes=["kernels/*.py"], include_py_files=True)
