"""Small synthetic data for tests: a checkerboard log, and a tiny random language model."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

COLOURS = ["red", "blue"]
THINGS = ["shoe", "tent", "novel", "album", "film", "coffee", "jacket", "lamp", "chair", "bicycle"]


def write_checkerboard(
    folder: Path, users: int = 80, items: int = 40, steps: int = 24, seed: int = 0
) -> tuple[Path, Path]:
    """Write items.csv and log.csv: even users like red items, odd users blue ones, in turn."""
    rng = np.random.default_rng(seed)
    paths = folder / "items.csv", folder / "log.csv"
    with paths[0].open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "text", "colour"])
        writer.writerows(
            [f"i{at:03d}", f"{THINGS[at % 10]} number {at}", COLOURS[at % 2]] for at in range(items)
        )
    with paths[1].open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "timestamp", "reward", "context"])
        for user in range(users):
            for step, item in enumerate(rng.permutation(items)[:steps]):
                liked = item % 2 == user % 2
                writer.writerow(
                    [
                        f"u{user:03d}",
                        f"i{item:03d}",
                        1000 * user + step,
                        1 if liked else -1,
                        "a quiet evening",
                    ]
                )
    return paths


def write_language_model(folder: Path) -> Path:
    """Write a BERT of 4 layers and 32 dimensions, random weights, and a tokenizer of words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *COLOURS,
        *THINGS,
        "number",
        "colour",
        "a",
        "quiet",
        "evening",
    ]
    words += [
        *"0123456789abcdefghijklmnopqrstuvwxyz:.",
        *(f"##{c}" for c in "0123456789abcdefghijklmnopqrstuvwxyz"),
    ]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    return folder
