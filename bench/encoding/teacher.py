"""The language model that all encoders are compared with."""

from __future__ import annotations

import torch

from sanderling_quantize.encoders.teacher import Teacher
from sanderling_trainer.policy.model.language_model_files import MINILM, resolve

MAX_TOKENS = 64


def load_teacher() -> Teacher:
    """Load the language model that the project uses by default, on the CPU as devices have it."""
    return Teacher.load(resolve(MINILM), MAX_TOKENS, torch.device("cpu"))
