"""Making the devices of installs begin anew, of which nothing can be learned.

Two devices that go by one name do not know of each other, and a gap in the numbers never closes: only the lab sees it,
and only another name mends it. Collectors ask marked installs for one; a device takes it when all that it had is
acknowledged.
"""

from __future__ import annotations

from sanderling.errors import SanderlingError
from sanderling_trainer.event_log.object_store import open_store
from sanderling_trainer.event_log.reader import read_parts
from sanderling_trainer.event_log.summary import facts_of
from sanderling_trainer.event_log.tombstones import ROTATED, rotation

FEW = 100


class RotationError(SanderlingError):
    """So many installs would be renewed that something else must be wrong."""


def rotate_identities(store: str, at_most: float = 0.05) -> list[str]:
    """Mark the doubled and incomplete installs of a folder or an object store; return those that were not before.

    A gap counts if it is still there when the log is read again: a batch that came while files were listed may be seen
    before one that came earlier. Raises `RotationError`, and marks nobody, where that would be more than a hundred
    installs and a larger share of all than `at_most`: the users of each become strangers to their device.
    """
    log = facts_of(read_parts(store))
    unfit = set(log.doubled)
    if log.incomplete:
        unfit |= set(log.incomplete) & set(facts_of(read_parts(store)).incomplete)
    place = open_store(store)
    marks = frozenset(place.names(ROTATED))
    new = sorted(install for install in unfit if rotation(install) not in marks)
    if len(new) > max(FEW, at_most * log.installs):
        raise RotationError(
            f"{store}: expected at most {at_most:.0%} of {log.installs} installs to be doubled or incomplete, found"
            f" {len(new)}; was a segment lost, or a disk image shipped that had run? If they are to take other names"
            " all the same, say so with --at-most"
        )
    for install in new:
        place.put(rotation(install), b"")
    return new
