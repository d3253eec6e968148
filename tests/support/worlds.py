"""Small synthetic data for tests: a checkerboard log, and a tiny random language model."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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


def write_multilingual_model(folder: Path, texts: Iterable[str]) -> Path:
    """Write an XLM-RoBERTa of 2 layers and 32 dimensions, random weights, with prompts as E5 has
    them; its pieces are the words and characters of the texts.
    """
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    tokenizer = unigram_tokenizer(texts)
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=80,
        pad_token_id=1,
    )
    XLMRobertaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder


def unigram_tokenizer(texts: Iterable[str]) -> Any:
    """Return a tokenizer as XLM-RoBERTa has it; its pieces are those of the texts: words, pairs of
    characters, characters.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import XLMRobertaTokenizerFast

    words = dict.fromkeys(
        word for text in ["query: passage:", *texts] for word in text.replace(":", " :").split()
    )
    characters = dict.fromkeys("".join(words))
    pairs = dict.fromkeys(word[at : at + 2] for word in words for at in range(len(word) - 1))
    pieces = ["▁", *characters, *(f"▁{word}" for word in words), *pairs]
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    # frequent pieces come first; a longer one is likelier than its parts
    vocabulary += [
        (piece, -10.0 / len(piece) - at / 1000) for at, piece in enumerate(dict.fromkeys(pieces))
    ]
    vocabulary.append(("<mask>", 0.0))
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return XLMRobertaTokenizerFast(tokenizer_object=tokenizer)
