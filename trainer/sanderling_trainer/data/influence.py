"""Bounds on what one install can teach: at most what nine in ten installs teach anyway.

Pseudonyms are free, so nothing is bounded by pseudonym. An install may be one phone or a kiosk with
many users, and a fleet may have two installs or a million, so bounds are relative to the fleet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TYPICAL = 0.9
"""The quantile of the installs that bounds the others."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def influence_factors(install: Ints, amount: Floats, *keys: Ints) -> Floats:
    """Return by how much each of e entries must be scaled down, float64 [e] in (0, 1].

    install: int64 [e], the install that an entry is from; below 0 for what is not bounded.
    amount: float64 [e], how much the entry teaches, at least 0.
    keys: int64 [e] each, what it teaches of, from coarse to fine, such as its item, and its item
    and day.

    Of the total, and then of each key, no install keeps more than nine in ten installs send of what
    they send most of. With n installs none therefore keeps more than about 10 / n of the total, and
    among ten installs or fewer nothing is bounded. Coarse bounds come first: a kiosk whose total is
    scaled down keeps the proportions of its many items.
    """
    bounded = install >= 0
    if not bounded.any():
        return np.ones(len(install))
    if not bounded.all():
        factor = np.ones(len(install))
        columns = (key[bounded] for key in keys)
        factor[bounded] = influence_factors(install[bounded], amount[bounded], *columns)
        return factor

    factor = np.ones(len(install))
    _, install = np.unique(install, return_inverse=True)
    for key in (np.zeros(len(install), np.int64), *keys):
        pairs, pair = np.unique(np.stack([install, key]), axis=1, return_inverse=True)
        pair = pair.ravel()
        largest = np.zeros(install.max() + 1)
        np.maximum.at(largest, pairs[0], np.bincount(pair, amount))
        bound = np.quantile(largest, TYPICAL, method="higher")

        kept = np.bincount(pair, amount * factor)
        factor *= np.divide(bound, kept, out=np.ones(len(kept)), where=kept > bound)[pair]
    return factor
