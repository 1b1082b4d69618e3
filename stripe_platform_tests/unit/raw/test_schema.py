"""PostgreSQL's columns become the raw change log's, and only added ones are followed."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from stripe_platform.oltp.catalog import Column
from stripe_platform.raw.schema import (
    FollowedColumn,
    ReservedColumn,
    SchemaChanged,
    SchemaNotAcceptable,
    UnsupportedColumn,
    common_type,
    definition,
    definition_after,
    log_schema,
    merged,
    readable,
    refuse_changes,
    replaced_columns,
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


@pytest.mark.parametrize("again", ["int4", "int8", "text"])
def test_a_column_that_comes_again_after_its_drop_was_accepted_is_another_one_whatever_its_type(again: str) -> None:
    without = definition(pa.schema([ROW.field("id"), ROW.field("day")]))
    comes = row_schema("things", [column("id", "uuid"), column("day", "date"), column("amount", again)])
    assert replaced_columns(log_schema(ROW), without, comes) == ("amount",)
    with pytest.raises(SchemaChanged, match="column amount is another one than that whose values the log holds"):
        refuse_changes("things", log_schema(ROW), without, comes)


def numbered(*columns: tuple[str, int], filled_before: datetime | None = None) -> pa.Schema:
    return row_schema(
        "things",
        [
            Column(name, "int8", True, None, None, number=number, filled_before=filled_before)
            for name, number in columns
        ],
    )


def test_a_column_that_was_dropped_and_added_again_between_two_looks_is_another_one() -> None:
    was, now = numbered(("id", 1), ("amount", 2)), numbered(("id", 1), ("amount", 3))
    refuse_changes("things", log_schema(was), definition(was), was)
    with pytest.raises(SchemaChanged, match=r"column amount is another one.*accept-schema things"):
        refuse_changes("things", log_schema(was), definition(was), now)


def test_two_columns_that_changed_their_names_are_other_ones() -> None:
    was, now = numbered(("net", 1), ("gross", 2)), numbered(("gross", 1), ("net", 2))
    assert replaced_columns(log_schema(was), definition(was), now) == ("gross", "net")


def test_a_definition_without_numbers_goes_on_and_takes_them_over() -> None:
    was, now = numbered(("id", 1)), numbered(("id", 4))
    without_numbers = {"id": FollowedColumn("int64")}
    refuse_changes("things", log_schema(was), without_numbers, now)
    assert definition_after(without_numbers, now) == {"id": FollowedColumn("int64", 4)}


def test_when_older_rows_were_filled_is_kept_of_columns_that_are_new_to_the_definition_alone() -> None:
    first, later = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    begun = definition(numbered(("id", 1), filled_before=first))
    with_fee = definition_after(begun, numbered(("id", 1), ("fee", 2), filled_before=first))
    assert (with_fee["id"].filled_before, with_fee["fee"].filled_before) == (None, first.isoformat())
    assert definition_after(with_fee, numbered(("id", 1), ("fee", 2), filled_before=later)) == with_fee
    again = definition_after(with_fee, numbered(("id", 1), ("fee", 3), filled_before=later))
    assert again["fee"] == FollowedColumn("int64", 3, later.isoformat())


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
