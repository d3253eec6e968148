"""Daily Parquet files: the events of many segments in one file that any tool reads, each body once.

Its metadata names the segments that it replaces, so that readers who still see them count nothing
twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from sanderling.errors import EventError
from sanderling_trainer.event_log.deduplication import ReceivedEvent

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


def pack(events: Iterable[ReceivedEvent], segments: Sequence[str]) -> bytes:
    """Return a file of these events, by install and sequence number, that replaces `segments`."""
    ordered = sorted(events, key=lambda received: (received.event.install, received.event.seq))
    columns = {
        "received_at": [received.received_at for received in ordered],
        "sent_at": [received.sent_at for received in ordered],
        "times": [received.times for received in ordered],
        "install": [received.event.install for received in ordered],
        "seq": [received.event.seq for received in ordered],
        "event": [received.body for received in ordered],
    }
    schema = SCHEMA.with_metadata({REPLACES: json.dumps(list(segments))})
    return to_bytes(pa.Table.from_pydict(columns, schema))


def to_bytes(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def open_file(data: bytes) -> pq.ParquetFile:
    """Open a daily file, reading only its footer; raise `EventError` when it is another file."""
    with _parquet_errors():
        file = pq.ParquetFile(pa.BufferReader(data))
    if not file.schema_arrow.equals(SCHEMA) or REPLACES not in (file.schema_arrow.metadata or {}):
        raise EventError(
            f"expected the columns {', '.join(SCHEMA.names)} and the names of the replaced segments"
        )
    return file


def replaced_segments(file: pq.ParquetFile) -> list[str]:
    """Return the names of the segments that a file replaces."""
    return json.loads(file.schema_arrow.metadata[REPLACES])


def rows(file: pq.ParquetFile) -> Iterator[tuple[bytes, int, int | None, int]]:
    """Yield body, received_at, sent_at and times of each row; raise `EventError` on damage."""
    for batch in record_batches(file):
        columns = (batch[name].to_pylist() for name in ("event", "received_at", "sent_at", "times"))
        yield from zip(*columns, strict=True)


def record_batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches; raise `EventError` where they are damaged."""
    with _parquet_errors():
        yield from file.iter_batches(batch_size=BATCH_ROWS)


@contextmanager
def _parquet_errors() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise EventError(f"expected a Parquet file: {error}") from error
