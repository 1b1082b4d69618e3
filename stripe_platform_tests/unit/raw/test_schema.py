"""PostgreSQL's columns become the raw change log's, and only added ones are followed."""

import pyarrow as pa
import pytest

from stripe_platform.oltp.catalog import Column
from stripe_platform.raw.schema import (
    ReservedColumn,
    SchemaChanged,
    UnsupportedColumn,
    added_columns,
    log_schema,
    row_schema,
    schema_version,
)


def column(name: str, kind: str, precision: int | None = None, scale: int | None = None) -> Column:
    return Column(name=name, type=kind, nullable=False, precision=precision, scale=scale)


ROW = row_schema("things", [column("id", "uuid"), column("amount", "int8"), column("day", "date")])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("uuid", pa.string()),
        ("text", pa.string()),
        ("bpchar", pa.string()),
        ("jsonb", pa.string()),
        ("inet", pa.string()),
        ("int2", pa.int16()),
        ("int4", pa.int32()),
        ("int8", pa.int64()),
        ("bool", pa.bool_()),
        ("date", pa.date32()),
        ("timestamptz", pa.timestamp("us", tz="UTC")),
    ],
)
def test_each_type_has_its_exact_counterpart_and_may_be_null(kind: str, expected: pa.DataType) -> None:
    (field,) = row_schema("things", [column("x", kind)])
    assert field.type == expected
    assert field.nullable


def test_a_numeric_keeps_its_precision_and_scale() -> None:
    assert row_schema("things", [column("x", "numeric", 20, 10)]).types == [pa.decimal128(20, 10)]


@pytest.mark.parametrize(
    "unsupported",
    [
        column("x", "numeric"),
        column("x", "numeric", 39, 2),
        column("x", "numeric", 2, 5),
        column("x", "float8"),
        column("x", "timestamp"),
    ],
)
def test_a_column_that_cannot_be_held_exactly_is_refused_by_name(unsupported: Column) -> None:
    with pytest.raises(UnsupportedColumn, match=rf"things\.{unsupported.name}"):
        row_schema("things", [unsupported])


@pytest.mark.parametrize("name", ["_offset", "_anything"])
@pytest.mark.parametrize(("kind", "precision", "scale"), [("int8", None, None), ("numeric", 20, 2)])
def test_a_column_named_like_those_of_the_log_is_refused_by_name(
    name: str, kind: str, precision: int | None, scale: int | None
) -> None:
    with pytest.raises(ReservedColumn, match=rf"things\.{name} begins with an underscore.*rename it"):
        row_schema("things", [column("id", "uuid"), column(name, kind, precision, scale)])


def test_the_log_is_the_row_then_its_bookkeeping() -> None:
    assert log_schema(ROW).names == [
        *("id", "amount", "day"),
        *("_op", "_lsn", "_xid", "_committed_at", "_partition", "_offset", "_snapshot", "_unchanged"),
        *("_loaded_at", "_schema_version"),
    ]


def test_an_added_column_is_found_and_an_unchanged_table_adds_none() -> None:
    wider = row_schema("things", [*_columns(), column("nickname", "text")])
    assert added_columns("things", log_schema(ROW), wider) == [pa.field("nickname", pa.string())]
    assert added_columns("things", log_schema(ROW), ROW) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([column("id", "uuid"), column("day", "date")], "amount is gone"),
        ([column("id", "uuid"), column("total", "int8"), column("day", "date")], "amount is gone"),
        ([column("id", "uuid"), column("amount", "int4"), column("day", "date")], "amount was int64 and is int32"),
    ],
)
def test_a_dropped_renamed_or_narrowed_column_is_refused(changed: list[Column], message: str) -> None:
    with pytest.raises(SchemaChanged, match=message):
        added_columns("things", log_schema(ROW), row_schema("things", changed))


def test_the_version_follows_names_types_and_order() -> None:
    versions = {
        schema_version(row_schema("things", columns))
        for columns in (
            _columns(),
            list(reversed(_columns())),
            [*_columns(), column("nickname", "text")],
            [column("id", "text"), column("amount", "int4"), column("day", "date")],
        )
    }
    assert len(versions) == 4
    assert schema_version(row_schema("things", _columns())) == schema_version(ROW)


def _columns() -> list[Column]:
    return [column("id", "uuid"), column("amount", "int8"), column("day", "date")]
