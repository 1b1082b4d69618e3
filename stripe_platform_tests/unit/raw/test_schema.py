"""PostgreSQL's columns become the raw change log's, and only added ones are followed."""

import pyarrow as pa
import pytest

from stripe_platform.oltp.catalog import Column
from stripe_platform.raw.schema import (
    ReservedColumn,
    SchemaChanged,
    SchemaNotAcceptable,
    UnsupportedColumn,
    common_type,
    definition,
    log_schema,
    merged,
    readable,
    refuse_changes,
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


WIDER = row_schema(
    "things", [column("id", "uuid"), column("amount", "int8"), column("day", "date"), column("x", "text")]
)


def test_an_added_column_is_no_refusal_and_stands_behind_the_log_s_own() -> None:
    log = log_schema(ROW)
    refuse_changes("things", log, definition(ROW), WIDER)
    assert list(merged("things", log, WIDER)) == [*log, pa.field("x", pa.string())]
    assert merged("things", log, ROW) == log


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([column("id", "uuid"), column("day", "date")], "amount is gone"),
        ([column("id", "uuid"), column("total", "int8"), column("day", "date")], "amount is gone"),
        ([column("id", "uuid"), column("amount", "int4"), column("day", "date")], "amount was int64 and is int32"),
        ([column("id", "uuid"), column("amount", "text"), column("day", "date")], "amount was int64 and is string"),
    ],
)
def test_a_dropped_renamed_or_retyped_column_is_refused_with_the_command_that_accepts_it(
    changed: list[Column], message: str
) -> None:
    with pytest.raises(SchemaChanged, match=f"{message}.*stripe-platform accept-schema things"):
        refuse_changes("things", log_schema(ROW), definition(ROW), row_schema("things", changed))


def test_a_longer_or_shorter_text_is_no_change() -> None:
    was, now = (row_schema("things", [column("name", kind)]) for kind in ("text", "varchar"))
    refuse_changes("things", log_schema(was), definition(was), now)


@pytest.mark.parametrize(("again", "is_followed"), [("int4", True), ("int8", True), ("text", False)])
def test_a_column_that_comes_again_is_followed_when_the_log_can_hold_it(again: str, is_followed: bool) -> None:
    without = definition(pa.schema([ROW.field("id"), ROW.field("day")]))
    comes = row_schema("things", [column("id", "uuid"), column("day", "date"), column("amount", again)])
    if is_followed:
        refuse_changes("things", log_schema(ROW), without, comes)
    else:
        with pytest.raises(SchemaChanged, match="amount is new as string, and was int64 before"):
            refuse_changes("things", log_schema(ROW), without, comes)


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (pa.int16(), pa.int64(), pa.int64()),
        (pa.int32(), pa.int32(), pa.int32()),
        (pa.decimal128(20, 10), pa.decimal128(10, 2), pa.decimal128(20, 10)),
        (pa.decimal128(10, 2), pa.decimal128(12, 8), pa.decimal128(16, 8)),
        (pa.decimal128(38, 0), pa.decimal128(10, 2), None),
        (pa.int64(), pa.string(), None),
        (pa.date32(), pa.timestamp("us", tz="UTC"), None),
    ],
)
def test_the_common_type_holds_both_exactly_or_there_is_none(
    one: pa.DataType, other: pa.DataType, common: pa.DataType | None
) -> None:
    assert common_type(one, other) == common_type(other, one) == common


def test_a_change_that_no_type_bridges_is_not_acceptable_and_the_way_out_is_named() -> None:
    with pytest.raises(SchemaNotAcceptable, match=r"things\.day is date32.*under a name of its own"):
        merged("things", log_schema(ROW), row_schema("things", [column("day", "text")]))


def test_changes_are_read_as_the_table_s_columns_in_the_log_s_types_then_those_it_has_no_more() -> None:
    row = row_schema("things", [column("amount", "int4"), column("id", "uuid")])
    assert list(readable(log_schema(ROW), row)) == [ROW.field("amount"), ROW.field("id"), ROW.field("day")]


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
