"""Settings of a training in a TOML file and as arguments, and a template of that file.

Nothing here imports torch, so that mistakes are named at once.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from sanderling_quantize.settings import checked, description, types_of
from sanderling_trainer.policy.model import config as configs
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.train_options import (
    FILE_OPTIONS,
    SETTINGS,
    TrainOptions,
    free_settings,
)

TYPES = {**configs.TYPES, **{name: types_of(TrainOptions)[name] for name in FILE_OPTIONS}}
"""Of each setting that a file can have."""


def combined(
    file: Path | str | None, given: Mapping[str, Any]
) -> tuple[Config, TrainOptions, dict[str, Any]]:
    """Return configuration and options of a settings file and of arguments, which override it; and
    what both of them give. Settings that neither gives are chosen by the log.

    Raises `ValueError` naming the file where it is no TOML, has an unknown key or a wrong value.
    """
    settings = {} if file is None else read_settings(Path(file))
    settings |= checked(given, TYPES)
    options = {name: settings[name] for name in FILE_OPTIONS if name in settings}
    config = Config(**{name: settings[name] for name in settings if name not in options})
    return config, TrainOptions(choose=free_settings(settings), **options), settings


def read_settings(file: Path) -> dict[str, Any]:
    """Return the settings of a TOML file. See `combined`."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: expected TOML, found: {error}") from error
    return checked(values, TYPES, str(file))


def settings_template() -> str:
    """Return a settings file with every setting at its default, and its meaning as a comment.

    Settings that the log chooses, and those without a value, are commented out.
    """
    lines = [
        "# Settings of a training: sanderling train --config train.toml",
        "# Arguments of the command go before what stands here. What is commented out is chosen by",
        "# the log, or not set.",
    ]
    for owner in (Config, TrainOptions):
        meanings = _meanings(owner)
        for field in fields(owner):
            if field.name in TYPES:
                lines += ["", *textwrap.wrap(meanings[field.name], 98, **_COMMENT)]
                lines.append(_assignment(field.name, field.default))
    return "\n".join(lines)


_COMMENT: dict[str, Any] = {"initial_indent": "# ", "subsequent_indent": "# "}


def _assignment(name: str, default: Any) -> str:
    if default is None:
        return f"# {name} = <{description(TYPES[name]).removesuffix(' or none')}>"
    line = f"{name} = {json.dumps(default)}"
    return f"# {line}  # chosen by the log" if name in SETTINGS else line


def _meanings(owner: type) -> dict[str, str]:
    """Return the docstring below each field of a class."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found
