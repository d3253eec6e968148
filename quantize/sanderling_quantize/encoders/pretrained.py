"""Loads pretrained language models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoModel
from transformers.utils import logging


def load_model(folder: str | Path) -> Any:
    """Return the model of a Hugging Face folder or id, without a progress bar for its weights."""
    had_bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return AutoModel.from_pretrained(folder)
    finally:
        if had_bar:
            logging.enable_progress_bar()
