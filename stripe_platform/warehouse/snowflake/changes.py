"""The changes of a log that are to be loaded, a batch at a time, in the form that Snowflake takes."""

import json
from collections.abc import Mapping
from functools import reduce
from operator import or_

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from stripe_platform.warehouse.change_log_views import RawTable

# First offset and the one after the last.
Range = tuple[int, int]


def changes_in(raw: RawTable, ranges: Mapping[int, Range]) -> pa.RecordBatchReader:
    """Every change of the log whose offset lies in the range of its partition, with every column of the log."""
    places = [
        (pc.field("_partition") == partition) & (pc.field("_offset") >= begin) & (pc.field("_offset") < end)
        for partition, (begin, end) in ranges.items()
    ]
    # A file written before a column was added lacks it: it is null there.
    files = ds.dataset(raw.files, schema=raw.schema, format="parquet")
    return files.scanner(filter=reduce(or_, places), batch_readahead=1, fragment_readahead=1).to_reader()


def rows_for_loading(changes: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The changes with lists as JSON text, for Snowflake's scanners do not agree on how a list in Parquet is read."""
    lists = {field.name for field in changes.schema if pa.types.is_list(field.type)}
    schema = pa.schema(
        [pa.field(field.name, pa.string()) if field.name in lists else field for field in changes.schema]
    )
    batches = (
        pa.RecordBatch.from_arrays(
            [_as_json(batch.column(name)) if name in lists else batch.column(name) for name in schema.names],
            schema=schema,
        )
        for batch in changes
    )
    return pa.RecordBatchReader.from_batches(schema, batches)


def _as_json(lists: pa.Array) -> pa.Array:
    return pa.array([None if value is None else json.dumps(value) for value in lists.to_pylist()], pa.string())
