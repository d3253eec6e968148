"""The files of a language model, checked before it is loaded."""

from __future__ import annotations

import json

import pytest

from sanderling_trainer.policy.model.language_model_files import (
    MINILM,
    LanguageModelError,
    check_files,
    check_weights,
    resolve,
)


def test_the_packaged_language_model_has_the_published_weights():
    """The default's folder is found only with the weights whose hash is known."""
    assert resolve(MINILM).endswith("model")


def test_other_weights_of_the_packaged_language_model_are_refused(tmp_path):
    """A file with a bit changed, or none, is an error that says what to do."""
    path = tmp_path / "model.safetensors"
    with pytest.raises(LanguageModelError, match="found none"):
        check_weights(path)
    path.write_bytes(b"weights")
    with pytest.raises(LanguageModelError, match="install the package"):
        check_weights(path)


@pytest.mark.parametrize("is_mean", [True, False])
def test_language_models_of_another_pooling_are_refused(tmp_path, is_mean):
    """A folder that says its vectors are those of the first token, say, is named; means pass."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "1_Pooling").mkdir()
    pooling = {"pooling_mode_cls_token": not is_mean, "pooling_mode_mean_tokens": is_mean}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if is_mean:
        check_files(str(tmp_path))
        return
    with pytest.raises(LanguageModelError, match="means over the tokens"):
        check_files(str(tmp_path))
