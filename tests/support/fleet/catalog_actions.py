"""Actions of an app that change a device's catalog: add and remove items, install and roll back.

A change is durable when the call returns. Without the lock on the state folder it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest

from sanderling.errors import SanderlingError
from tests.support.engines import active_bundle_of
from tests.support.fleet.releases import MAX_ITEMS, install_copy

if TYPE_CHECKING:
    from tests.support.fleet.device import Device

N_NEW_ITEMS = 6
TEXTS = ["a red trail shoe", "a film about the sea", "Kaffee, schwarz"]


def upsert(device: Device) -> None:
    """Add a new item, or replace the text of an item of the catalog."""
    assert device.engine is not None
    text = f"{device.rng.choice(TEXTS)} {device.rng.randrange(100)}"
    wall_ms = device.clock.wall_ms()
    new = f"new-{device.name}-{device.rng.randrange(N_NEW_ITEMS)}"
    item = device.rng.choice([new, f"item-{device.rng.randrange(MAX_ITEMS)}"])
    if try_change(device, partial(device.engine.upsert_items, [{"id": item, "text": text}])):
        device.catalog.upsert(item, text, wall_ms)
        device.simulation.record(device.name, "upserts", item)


def remove(device: Device) -> None:
    """Remove an item of some release or an added one."""
    assert device.engine is not None
    item = device.rng.choice(
        [f"item-{device.rng.randrange(MAX_ITEMS)}", *sorted(device.catalog.added)]
    )
    if try_change(device, partial(device.engine.remove_items, [item])):
        device.catalog.remove(item)
        device.simulation.record(device.name, "removes", item)


def swap(device: Device) -> None:
    """Install a newer release, if there is one, as an update does after fetching it."""
    assert device.engine is not None
    newer = device.catalog.newer()
    if newer:
        release = device.rng.choice(newer)
        update = partial(active_bundle_of(device.engine).update, partial(install_copy, release))
        if try_change(device, update):
            device.catalog.install(release)
            device.simulation.record(device.name, "installs release", release)


def roll_back(device: Device) -> None:
    """Roll back to the previous release."""
    assert device.engine is not None
    if device.catalog.owns_folder:
        device.simulation.record(device.name, "rolls back to", device.engine.rollback())
        device.catalog.roll_back()


def try_change(device: Device, change: Callable[[], object]) -> bool:
    """Make a change; return whether the device owns its state folder, else check the refusal."""
    if device.catalog.owns_folder:
        change()
    else:
        with pytest.raises(SanderlingError, match="expected the engine that holds this folder"):
            change()
    return device.catalog.owns_folder
