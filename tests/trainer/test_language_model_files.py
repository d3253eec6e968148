"""The files of a language model, checked before it is loaded."""

from __future__ import annotations

import pytest

from sanderling_trainer.policy.model.language_model_files import (
    MINILM,
    LanguageModelError,
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
