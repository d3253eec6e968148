"""Daily Parquet: many small segments in one file that any tool reads, without the repetitions. Refuses to know stores.

The file names the segments that it replaces, so that a reader who still sees them counts nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from sanderling.errors import EventError
from sanderling_trainer.data.gathering import Seen

FOLDER = "daily"
SUFFIX = ".parquet"
REPLACES = b"sanderling.replaces"
SCHEMA = pa.schema(
    {
        "received_at": pa.int64(),
        "sent_at": pa.int64(),
        "times": pa.int64(),
        "install": pa.string(),
        "seq": pa.int64(),
        "event": pa.binary(),
    }
)


def pack(found: Iterable[Seen], replaces: Sequence[str]) -> bytes:
    """Return the file of these bodies, by install and number."""
    rows = [
        {
            "received_at": seen.received_at,
            "sent_at": seen.sent_at,
            "times": seen.times,
            "install": seen.event.install,
            "seq": seen.event.seq,
            "event": seen.body,
        }
        for seen in sorted(found, key=lambda seen: (seen.event.install, seen.event.seq))
    ]
    return write(pa.Table.from_pylist(rows, SCHEMA).replace_schema_metadata({REPLACES: json.dumps(list(replaces))}))


def write(table: pa.Table) -> bytes:
    """Return the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def read(data: bytes) -> pa.Table:
    """Return the table of a file; raise `EventError` when it is not such a file."""
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise EventError(f"expected a Parquet file: {error}") from error
    if not table.schema.equals(SCHEMA) or REPLACES not in (table.schema.metadata or {}):
        raise EventError(f"expected the columns {', '.join(SCHEMA.names)} and the names of the replaced segments")
    return table


def replaces(table: pa.Table) -> list[str]:
    """Return the names of the segments that a file stands for."""
    return json.loads(table.schema.metadata[REPLACES])


def lines(table: pa.Table) -> Iterator[tuple[bytes, int, int | None, int]]:
    """Yield body, received_at, sent_at and times of each row."""
    columns = (table[name].to_pylist() for name in ("event", "received_at", "sent_at", "times"))
    yield from zip(*columns, strict=True)
