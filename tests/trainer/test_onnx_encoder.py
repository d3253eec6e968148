"""Texts encoded through ONNX Runtime have the vectors that torch gives them."""

from __future__ import annotations

import logging
import os

import numpy as np
import pytest
import torch

from sanderling_trainer.jobs.retrain import retrain
from sanderling_trainer.jobs.retrain_options import RetrainOptions
from sanderling_trainer.policy.model import language_model
from sanderling_trainer.policy.model.device import DeviceError, torch_device
from sanderling_trainer.policy.model.language_model import LanguageModel
from sanderling_trainer.policy.model.onnx_encoder import OnnxEncoder
from tests.support.worlds import COLOURS, THINGS, write_language_model

pytestmark = pytest.mark.lab

TEXTS = [
    " ".join([COLOURS[at % len(COLOURS)], *THINGS[: at % 7], f"number {at}"]) for at in range(150)
] + ["", "a quiet evening " * 20]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return LanguageModel(str(write_language_model(tmp_path_factory.mktemp("onnx") / "model")), 16)


def test_both_runtimes_give_the_same_vectors(model, monkeypatch):
    """Cosine 1 within 1e-5 for texts of all lengths, in batches other than the traced one."""
    expected = model.encode(TEXTS)
    made = []
    monkeypatch.setattr(language_model, "ONNX_FROM", 1)
    monkeypatch.setattr(
        language_model, "OnnxEncoder", lambda *a: made.append(OnnxEncoder(*a)) or made[-1]
    )
    found = model.encode(TEXTS)
    assert made
    assert (np.abs((expected * found).sum(axis=1) - 1) < 1e-5).all()


def test_an_export_leaves_the_model_as_it_was(model, monkeypatch):
    """The exporter switches modules to training and back; dropout must stay off."""
    before = model.encode(TEXTS)
    monkeypatch.setattr(language_model, "ONNX_FROM", 1)
    model.encode(TEXTS)
    assert not any(module.training for module in model.model.modules())
    monkeypatch.undo()
    np.testing.assert_array_equal(model.encode(TEXTS), before)


@pytest.mark.parametrize("kept", ["pooled at random", "a branch on the values"])
def test_a_graph_that_differs_from_its_model_is_not_used(model, monkeypatch, caplog, kept):
    """A tracer keeps the branch that the example took; such a model is encoded by torch."""
    forward = model.model.forward
    calls = []

    def changing(**tokens):
        calls.append(1)
        found = forward(**tokens)
        at_random = torch.rand_like(found.last_hidden_state)
        found.last_hidden_state = (
            at_random
            if kept == "pooled at random"
            else (found.last_hidden_state if len(calls) == 1 else -found.last_hidden_state)
        )
        return found

    monkeypatch.setattr(language_model, "ONNX_FROM", 1)
    monkeypatch.setattr(model.model, "forward", changing)
    with caplog.at_level(logging.WARNING):
        assert model.encode(TEXTS).shape == (len(TEXTS), 32)
    assert "encoded by torch, not by ONNX Runtime" in caplog.text


def test_a_model_that_cannot_be_traced_is_encoded_by_torch(model, monkeypatch, caplog):
    """Whatever the exporter raises, the texts get their vectors."""
    expected = model.encode(TEXTS)

    def failing(*_, **__):
        raise RuntimeError("unsupported operator")

    monkeypatch.setattr(language_model, "ONNX_FROM", 1)
    monkeypatch.setattr(torch.onnx, "export", failing)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(model.encode(TEXTS), expected)
    assert "unsupported operator" in caplog.text


def test_telemetry_is_off():
    """ONNX Runtime was told to report nothing before it was loaded."""
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_gpu_that_is_not_there_is_one_clear_line(tmp_path, monkeypatch):
    """`--device cuda` fails before anything is read or written; auto takes the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_device("auto") == torch_device("cpu") == torch.device("cpu")
    with pytest.raises(DeviceError, match=r"found none; install .* or take --device cpu"):
        torch_device("cuda")
    with pytest.raises(DeviceError):
        retrain(str(tmp_path), tmp_path, tmp_path / "out", RetrainOptions(device="cuda"))
    assert not (tmp_path / "out").exists()
