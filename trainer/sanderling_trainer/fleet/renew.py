"""Making the devices of installs begin anew, of which nothing can be learned.

Two devices that go by one name do not know of each other, and a gap in the numbers never closes: only the lab sees it,
and only another name mends it. Collectors ask marked installs for one; a device takes it when all that it had is
acknowledged.
"""

from __future__ import annotations

from sanderling_trainer.data.marks import RENEWED, renewal
from sanderling_trainer.data.segments import read_parts
from sanderling_trainer.data.store import open_store


def renew(store: str) -> list[str]:
    """Mark the doubled and incomplete installs of a folder or an object store; return those that were not before.

    A gap counts if it is still there when the log is read again: a batch that came while files were listed may be seen
    before one that came earlier.
    """
    doubled, incomplete = _unfit(store)
    unfit = doubled | (incomplete and incomplete & _unfit(store)[1])
    place = open_store(store)
    marks = frozenset(place.names(RENEWED))
    new = sorted(install for install in unfit if renewal(install) not in marks)
    for install in new:
        place.put(renewal(install), b"")
    return new


def _unfit(store: str) -> tuple[set[str], set[str]]:
    """Return the doubled and the incomplete installs."""
    logs = [(log.doubled, log.incomplete) for log in read_parts(store)]
    return set().union(*(doubled for doubled, _ in logs)), set().union(*(incomplete for _, incomplete in logs))
