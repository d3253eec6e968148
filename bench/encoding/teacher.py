"""The language model that all encoders are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import AutoModel, AutoTokenizer

from sanderling_trainer.policy.model.language_model import MINILM, resolve


@dataclass(frozen=True)
class Teacher:
    """The language model and its tokenizer."""

    model: Any
    tokenizer: Any

    @staticmethod
    def load() -> Teacher:
        """Load the language model that the project uses by default."""
        folder = resolve(MINILM)
        return Teacher(
            AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
        )
