"""Changes of a device's catalogue: items added and removed, releases installed and rolled back.

Each change is durable when it returns; without the folder's lock it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest

from sanderling.errors import SanderlingError
from tests.support.engines import active_bundle_of
from tests.support.fleet.editions import MOST_ITEMS, bring

if TYPE_CHECKING:
    from tests.support.fleet.device import Device

NEW_ITEMS = 6
TEXTS = ["a red trail shoe", "a film about the sea", "Kaffee, schwarz"]


def upsert(device: Device) -> None:
    """Add a new item, or give an item of the catalogue another text."""
    assert device.engine is not None
    text, wall_ms = (
        f"{device.rng.choice(TEXTS)} {device.rng.randrange(100)}",
        device.clock.wall_ms(),
    )
    new = f"new-{device.name}-{device.rng.randrange(NEW_ITEMS)}"
    item = device.rng.choice([new, f"item-{device.rng.randrange(MOST_ITEMS)}"])
    if done(device, partial(device.engine.upsert_items, [{"id": item, "text": text}])):
        device.shelf.upsert(item, text, wall_ms)
        device.world.note(device.name, "upserts", item)


def remove(device: Device) -> None:
    """Remove an item of some release or an added one."""
    assert device.engine is not None
    item = device.rng.choice(
        [f"item-{device.rng.randrange(MOST_ITEMS)}", *sorted(device.shelf.added)]
    )
    if done(device, partial(device.engine.remove_items, [item])):
        device.shelf.remove(item)
        device.world.note(device.name, "removes", item)


def swap(device: Device) -> None:
    """Install a newer release, if there is one, as an update does after fetching it."""
    assert device.engine is not None
    newer = device.shelf.newer()
    if newer:
        release = device.rng.choice(newer)
        if done(device, partial(active_bundle_of(device.engine).update, partial(bring, release))):
            device.shelf.install(release)
            device.world.note(device.name, "takes release", release)


def roll_back(device: Device) -> None:
    """Roll back to the previous release."""
    assert device.engine is not None
    if device.shelf.held:
        device.world.note(device.name, "goes back to", device.engine.rollback())
        device.shelf.roll_back()


def done(device: Device, change: Callable[[], object]) -> bool:
    """Make a change; check that it is refused where the device does not hold its folder."""
    if device.shelf.held:
        change()
    else:
        with pytest.raises(SanderlingError, match="expected the engine that holds this folder"):
            change()
    return device.shelf.held
