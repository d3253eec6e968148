"""The command line, run inside the test's process: it has imported torch already."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from sanderling.cli import main


class Shell:
    """Runs the command line in this process, as `sanderling` would be run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, *arguments: object) -> tuple[int, str, str]:
        """Return exit status, stdout and stderr; an exception other than SystemExit is an error."""
        self._monkeypatch.setattr(sys, "argv", ["sanderling", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        code = ended.value.code
        return (1, out, f"{err}{code}\n") if isinstance(code, str) else (int(code or 0), out, err)

    def json(self, *arguments: object, status: int = 0) -> dict[str, Any]:
        """Return the JSON object on the last line of stdout; fail on another exit status."""
        found, out, err = self.run(*arguments, *([] if "--json" in arguments else ["--json"]))
        assert found == status, err
        result: dict[str, Any] = json.loads(out.splitlines()[-1])
        return result
