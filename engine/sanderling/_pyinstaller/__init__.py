"""What PyInstaller has to know: the entry point `pyinstaller40` leads here."""

from __future__ import annotations

from pathlib import Path


def hook_dirs() -> list[str]:
    """Return the folder of the hooks."""
    return [str(Path(__file__).parent)]
