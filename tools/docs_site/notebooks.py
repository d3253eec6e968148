"""A notebook as a page of Markdown: its texts, code, and what the code printed and drew."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any


def page_of(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """Return the page's text and its pictures by their file names."""
    pictures: dict[str, bytes] = {}
    blocks = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(source)
            continue
        blocks.append(_fence(source, "python"))
        blocks += [_output(output, notebook.stem, pictures) for output in cell["outputs"]]
    return "\n\n".join(blocks) + "\n", pictures


def _output(output: dict[str, Any], stem: str, pictures: dict[str, bytes]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        name = f"{stem}-{len(pictures)}.png"
        pictures[name] = base64.b64decode(data["image/png"])
        return f"![what the code above draws]({name})"
    text = "".join(output.get("text", data.get("text/plain", "")))
    return _fence(text.rstrip(), "text")


def _fence(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"
