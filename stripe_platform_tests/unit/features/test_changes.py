"""Changes hold plain values, exactly."""

import json
from typing import Any

import pytest

from stripe_platform.cdc.envelope import Layout, Records, decode
from stripe_platform.features.changes import TRUNCATE, Change, Refused, changes_of, kinds_of
from stripe_platform.oltp.catalog import Column
from stripe_platform.raw.schema import row_schema

COLUMNS = [
    Column("id", "uuid", False, None, None),
    Column("amount", "int8", True, None, None),
    Column("paid", "bool", True, None, None),
    Column("created", "timestamptz", True, None, None),
    Column("day", "date", True, None, None),
    Column("rate", "numeric", True, 20, 10),
    Column("metadata", "jsonb", True, None, None),
]
LAYOUT = Layout("charges", ("id",), row_schema("charges", COLUMNS), "left out")


def changes(*events: dict[str, Any]) -> list[Change | Refused]:
    values: list[bytes | None] = []
    for event in events:
        source = {"table": "charges", "ts_us": 1, "lsn": 7, "snapshot": "false"} | event.pop("source", {})
        values.append(json.dumps({"op": "c", "source": source} | event).encode())
    records = Records("stripe.payments.charges", [2] * len(values), range(40, 40 + len(values)), values)
    return changes_of("charges", decode(records, LAYOUT), kinds_of(COLUMNS))


def row(**values: Any) -> dict[str, Any]:
    (change,) = changes({"after": {"id": "a"} | values})
    assert isinstance(change, Change)
    return dict(change.row)


def test_a_change_holds_its_place_its_operation_and_plain_values() -> None:
    (change,) = changes(
        {
            "op": "u",
            "after": {
                "id": "a",
                "amount": 2**63 - 1,
                "paid": True,
                "created": "2026-01-01T00:00:00.123457Z",
                "day": 20454,
                "rate": "0.0000000001",
                "metadata": '{"order": "6735", "lines": [1, 2.5, null]}',
            },
        }
    )
    assert change == Change(
        table="charges",
        op="u",
        row={
            "id": "a",
            "amount": 2**63 - 1,
            "paid": True,
            "created": 1_767_225_600_123_457,
            "day": 20454,
            "rate": "0.0000000001",
            "metadata": {"order": "6735", "lines": [1, 2.5, None]},
        },
        unchanged=(),
        partition=2,
        offset=40,
        lsn=7,
    )


def test_a_delete_holds_its_key_alone() -> None:
    (change,) = changes({"op": "d", "before": {"id": "a", "amount": 0}})
    assert isinstance(change, Change)
    assert (change.op, change.row) == ("d", dict.fromkeys(kinds_of(COLUMNS)) | {"id": "a"})


def test_an_unchanged_large_value_is_none_and_named_on_its_own_change_alone() -> None:
    first, second = changes({"after": {"id": "a", "metadata": "left out"}}, {"after": {"id": "b", "metadata": "{}"}})
    assert isinstance(first, Change)
    assert isinstance(second, Change)
    assert (first.unchanged, first.row["metadata"]) == (("metadata",), None)
    assert (second.unchanged, second.row["metadata"]) == ((), {})


@pytest.mark.parametrize("snapshot", ["true", "last", "incremental"])
def test_a_record_of_a_snapshot_has_no_lsn(snapshot: str) -> None:
    (change,) = changes({"op": "r", "after": {"id": "a"}, "source": {"snapshot": snapshot, "lsn": 5}})
    assert isinstance(change, Change)
    assert change.lsn is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9223372036854775807", 9223372036854775807),
        ("9223372036854775808", "9223372036854775808"),
        ("-9223372036854775808", -9223372036854775808),
        ("-9223372036854775809", "-9223372036854775809"),
        ("1" + "0" * 5000, "1" + "0" * 5000),
        ("0.1", 0.1),
        ("1.10", 1.1),
        ("0.1234567890123456789", "0.1234567890123456789"),
        ("1" + "0" * 400 + ".5", "1" + "0" * 400 + ".5"),
    ],
)
def test_a_number_of_a_document_is_a_text_where_no_type_holds_it_exactly(text: str, value: object) -> None:
    assert row(metadata=f'{{"n": [{text}]}}')["metadata"] == {"n": [value]}


@pytest.mark.parametrize("text", ["{", '{"a": NaN}', '{"a": -Infinity}', "[" * 100_000 + "]" * 100_000])
def test_a_document_that_is_none_is_refused_and_the_others_go_on(text: str) -> None:
    refused, kept = changes({"after": {"id": "a", "metadata": text}}, {"after": {"id": "b"}})
    assert refused == Refused(2, 40, "metadata is not JSON, or nested too deep")
    assert isinstance(kept, Change)
    assert kept.row["id"] == "b"


def test_a_truncate_is_refused_with_the_remedy() -> None:
    assert changes({"op": "t"}) == [Refused(2, 40, TRUNCATE)]
