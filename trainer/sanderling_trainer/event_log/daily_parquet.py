"""Daily Parquet: many small segments in one file that any tool reads, without the repetitions. Refuses to know stores.

The file names the segments that it replaces, so that a reader who still sees them counts nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from sanderling.errors import EventError
from sanderling_trainer.event_log.deduplication import Seen

FOLDER = "daily"
SUFFIX = ".parquet"
REPLACES = b"sanderling.replaces"
BATCH_ROWS = 512
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
    rows = sorted(found, key=lambda seen: (seen.event.install, seen.event.seq))
    columns = {
        "received_at": [seen.received_at for seen in rows],
        "sent_at": [seen.sent_at for seen in rows],
        "times": [seen.times for seen in rows],
        "install": [seen.event.install for seen in rows],
        "seq": [seen.event.seq for seen in rows],
        "event": [seen.body for seen in rows],
    }
    return write(
        pa.Table.from_pydict(columns, SCHEMA.with_metadata({REPLACES: json.dumps(list(replaces))}))
    )


def write(table: pa.Table) -> bytes:
    """Return the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def opened(data: bytes) -> pq.ParquetFile:
    """Open a file, of which only the footer is read; raise `EventError` when it is not such a file."""
    with _sound():
        file = pq.ParquetFile(pa.BufferReader(data))
    if not file.schema_arrow.equals(SCHEMA) or REPLACES not in (file.schema_arrow.metadata or {}):
        raise EventError(
            f"expected the columns {', '.join(SCHEMA.names)} and the names of the replaced segments"
        )
    return file


def replaces(file: pq.ParquetFile) -> list[str]:
    """Return the names of the segments that a file stands for."""
    return json.loads(file.schema_arrow.metadata[REPLACES])


def lines(file: pq.ParquetFile) -> Iterator[tuple[bytes, int, int | None, int]]:
    """Yield body, received_at, sent_at and times of each row."""
    for batch in batches(file):
        columns = (batch[name].to_pylist() for name in ("event", "received_at", "sent_at", "times"))
        yield from zip(*columns, strict=True)


def batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Yield the rows, some at a time; raise `EventError` where they are damaged."""
    with _sound():
        yield from file.iter_batches(batch_size=BATCH_ROWS)


@contextmanager
def _sound() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise EventError(f"expected a Parquet file: {error}") from error
