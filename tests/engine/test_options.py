"""The options of `Engine.open`: wrong ones are named in errors, and all of them are typed."""

from __future__ import annotations

from typing import get_type_hints

import pytest

from sanderling import Engine
from sanderling.options import EngineOptions, OptionTypes
from tests.support.fakes import FakeTransport


@pytest.mark.parametrize("setting", ["privacy", "window_s", "pseudonym_days", "outbox_bytes"])
def test_a_setting_of_any_size_is_named_in_its_error(bundle, tmp_path, setting):
    """A setting of hundreds or thousands of digits is a ValueError that names it."""
    for number in (10**400, 10**5000):
        with pytest.raises(ValueError, match=f"{setting}: expected"):
            Engine.open(bundle, tmp_path / "state", transport=FakeTransport(), **{setting: number})


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"outbox_bytes": 0}, "outbox_bytes"),
        ({"outbox_bytes": 1e9}, "outbox_bytes"),
        ({"outbox_bytes": True}, "outbox_bytes"),
        ({"collector": "http://127.0.0.1:9", "transport": FakeTransport()}, "transport"),
    ],
)
def test_impossible_settings_are_named(bundle, tmp_path, settings, name):
    """A wrong outbox size, or two destinations, raise ValueError before anything is opened."""
    with pytest.raises(ValueError, match=name):
        Engine.open(bundle, tmp_path / "state", **settings)
    assert not (tmp_path / "state").exists()


def test_open_types_every_option():
    """The keyword arguments of `Engine.open` are the fields of `EngineOptions`, with the same
    types."""
    fields = get_type_hints(EngineOptions)
    positional = {"state", "collector", "token"}
    assert get_type_hints(OptionTypes) == {
        name: kind for name, kind in fields.items() if name not in positional
    }


def test_an_unknown_option_is_named(bundle):
    """A misspelt option raises TypeError that names it."""
    with pytest.raises(TypeError, match="windows_s"):
        Engine.open(bundle, windows_s=60.0)
