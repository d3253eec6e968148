"""Which language models students can be distilled from. Needs neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BERT_LIKE = ("bert", "roberta", "xlm-roberta", "camembert")


def check_architecture(config: Mapping[str, Any], source: str) -> None:
    """Raise `ValueError` unless the configuration of a language model is that of a BERT.

    config: the contents of its config.json.
    """
    kind = config.get("model_type", "")
    absolute = config.get("position_embedding_type", "absolute") == "absolute"
    # BERT's own default; a config.json may leave it out
    gelu = config.get("hidden_act", "gelu") == "gelu"
    if kind in BERT_LIKE and gelu and absolute:
        return
    found = kind or "none that is named"
    details = "" if kind not in BERT_LIKE else " with others"
    raise ValueError(
        f"{source}: expected a language model of the kinds {', '.join(BERT_LIKE)}, with absolute"
        f" positions and GELU, found {found}{details}; choose another language model"
    )
