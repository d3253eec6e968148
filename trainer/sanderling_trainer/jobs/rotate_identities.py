"""The rotation job: marks cloned and incomplete installs, so that they get new identities.

Two devices that share an identity cannot detect each other, and a gap in the sequence numbers never
closes: only the server can detect either, and only a new identity repairs it. Collectors ask marked
installs to rotate; a device does so when all of its events are acknowledged.
"""

from __future__ import annotations

from sanderling.errors import SanderlingError
from sanderling_trainer.event_log.object_store import open_store
from sanderling_trainer.event_log.reader import read_partitions
from sanderling_trainer.event_log.summary import summarize
from sanderling_trainer.event_log.token_installs import token_of, tokens_by_install
from sanderling_trainer.event_log.tombstones import ROTATED, rotation_file

ALWAYS_ALLOWED = 100


class RotationError(SanderlingError):
    """So many installs would be marked that something else must be wrong."""


def rotate_identities(store: str, at_most: float = 0.05) -> list[str]:
    """Mark the cloned and incomplete installs of a store; return those not marked before.

    Raises `RotationError`, and marks none, where that would be more than 100 devices and a larger
    share of all than `at_most`: users of a marked install become new users of their device.
    """
    summary = summarize(read_partitions(store))
    unusable = set(summary.cloned)
    if summary.incomplete:
        # A batch that came while files were listed may be seen before one that came earlier. So a
        # gap counts only if it is still there when the log is read again.
        unusable |= set(summary.incomplete) & set(summarize(read_partitions(store)).incomplete)

    place = open_store(store)
    marks = frozenset(place.names(ROTATED))
    new = sorted(install for install in unusable if rotation_file(install) not in marks)
    # One token can invent any number of installs, so that those of a token count as one.
    tokens = tokens_by_install(place)
    owners = {token_of(install, tokens) or install for install in summary.events_of}
    to_mark = {token_of(install, tokens) or install for install in new}
    if len(to_mark) > max(ALWAYS_ALLOWED, at_most * len(owners)):
        raise RotationError(
            f"{store}: expected at most {at_most:.0%} of {len(owners)} devices to be cloned "
            f"or incomplete, found {len(to_mark)}; check whether a segment was lost, or a disk"
            " image was shipped that had run; to rotate their identities anyway, raise --at-most"
        )
    for install in new:
        place.put(rotation_file(install), b"")
    return new
