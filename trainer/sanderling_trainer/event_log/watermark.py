"""Up to which event of each install a checkpoint has learned, so that no event teaches twice.

The numbers of an install have no gaps, so one number says it exactly, also for events that arrive
late. Installs are named by a hash: a checkpoint contains no id of an install.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HASH_BYTES = 16
SCHEMA = pa.schema({"install_sha256": pa.binary(HASH_BYTES), "seq": pa.int64()})


@dataclass(frozen=True)
class Watermark:
    """The highest sequence number of each install that a checkpoint has learned from."""

    _seq_of: Mapping[bytes, int] = field(default_factory=dict)

    def of(self, install: str) -> int:
        """Return an install's number, 0 where nothing of it was learned."""
        return self._seq_of.get(_hash(install), 0)

    def raised(self, seq_of: Mapping[str, int]) -> Watermark:
        """Return the watermark after the events of some installs up to these numbers."""
        raised = {
            _hash(install): max(seq, self.of(install)) for install, seq in seq_of.items() if seq
        }
        return Watermark({**self._seq_of, **raised})

    def save(self, path: Path) -> None:
        """Write a Parquet file."""
        rows = sorted(self._seq_of.items())
        columns = [[name for name, _ in rows], [seq for _, seq in rows]]
        pq.write_table(pa.table(columns, SCHEMA), path)

    @staticmethod
    def load(path: Path) -> Watermark:
        """Read what `save` wrote; empty where a checkpoint has no such file."""
        if not path.exists():
            return Watermark()
        table = pq.read_table(path, schema=SCHEMA)
        names, seqs = (table[name].to_pylist() for name in SCHEMA.names)
        return Watermark(dict(zip(names, seqs, strict=True)))


def _hash(install: str) -> bytes:
    return sha256(install.encode()).digest()[:HASH_BYTES]
