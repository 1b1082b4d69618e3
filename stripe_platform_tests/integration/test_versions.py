"""Dimensions that keep every version of a row: from hand-written change logs, and from random ones beside a model."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stripe_platform_tests.integration.product_histories import NO_BEGINNING, ProductHistories
from stripe_platform_tests.integration.test_warehouse import (
    EPOCH,
    UNCHANGED,
    Lake,
    build,
    customer,
    key,
    merchant,
    rows_of_build,
)

DIMENSIONS = ("dim_merchants", "dim_customers", "dim_cards", "dim_products")
STAGED = ("stg_merchants", "stg_customers", "stg_card_fingerprints", "stg_products")
# With the tests that need no other model: among them, that the current versions are the rows of staging.
SELECTION = ("--select", *(f"+{name}" for name in DIMENSIONS + STAGED), "--indirect-selection", "buildable")


# The end of what a last commit in the second second tells.
AFTER_TWO = 2.000001


def at(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def card(number: int, **values: Any) -> dict[str, Any]:
    return {"fingerprint": f"card {number}", "created": EPOCH} | values


def product(number: int, **values: Any) -> dict[str, Any]:
    return {"id": key(number), "created": EPOCH} | values


def write_cases(lake: Lake) -> None:
    """One case per number, and a commit time of its own for every transaction."""

    def commit(seconds: float, **change: Any) -> dict[str, Any]:
        return change | {"_committed_at": at(seconds), "_xid": int(seconds * 1000)}

    update: dict[str, Any] = {"_op": "u"}
    lake.write(
        "merchants",
        commit(1, **merchant(1, business_name="first")),
        commit(1, **merchant(2, business_name="first")),
        commit(2, **merchant(1, business_name="second"), **update),
        commit(3, **merchant(1, business_name="third"), **update),
        commit(2, **merchant(2, business_name="never seen"), **update),
        commit(2, **merchant(2, business_name="last of its transaction"), **update),
        commit(1, **merchant(3, business_name="same", metadata="{}")),
        commit(2, **merchant(3, business_name="same", metadata="{}"), _op="r", _lsn=None, _snapshot=True),
        commit(3, **merchant(3, business_name="same", metadata="other", updated=at(3)), **update),
        commit(1, **merchant(4, business_name="first"), _lsn=500),
        commit(2, **merchant(4, business_name="second"), **update, _lsn=600),
        commit(1, **merchant(4, business_name="first"), _lsn=500),
        commit(1, **merchant(5, business_name="large", mcc="1")),
        commit(2, **merchant(5, business_name=UNCHANGED, mcc="2"), **update),
        commit(3, **merchant(5, business_name=None, mcc="2"), **update),
        commit(4, **merchant(5, business_name=UNCHANGED, mcc="3"), **update),
        commit(1, **merchant(7, business_name="large")),
        commit(2, id=key(7), _op="d"),
        commit(3, **merchant(7, business_name=UNCHANGED, mcc="1"), **update),
        commit(10, **merchant(6, business_name="first")),
        commit(20, **merchant(6, business_name="second"), **update),
        commit(19, **merchant(6, business_name="third, by a clock that stepped back"), **update),
        commit(21, **merchant(6, business_name="fourth"), **update),
    )
    left = {"country": "FR", "deleted_at": at(2)}
    lake.write(
        "customers",
        commit(1, **customer(1, country="FR")),
        commit(2, **customer(1, **left), **update),
        commit(3, **customer(1, country="FR"), **update),
        commit(1, **customer(2, country="FR")),
        commit(2, id=key(2), _op="d"),
        commit(3, **customer(2, country="FR")),
        commit(1, **customer(3, country="FR")),
        commit(2, **customer(3, **left), **update),
        commit(3, id=key(3), _op="d"),
        commit(1, id=key(4), _op="d"),
    )
    write_losses(lake, commit)


def write_losses(lake: Lake, commit: Any) -> None:
    """A gap in the log of products, and a truncate of cards."""
    read = {"_op": "r", "_lsn": None, "_snapshot": True}
    lake.write(
        "products",
        commit(1, **product(1, name="read again")),
        commit(2, **product(2, name="not read again")),
        commit(1, **product(3, name="inserted again")),
        commit(2, **product(4, name="large", tax_code="1")),
    )
    lake.lose("products", 0, 5)
    lake.write(
        "products",
        commit(8, **product(4, name=UNCHANGED, tax_code="1"), _op="u"),
        commit(9, **product(1, name="read again"), **read),
        commit(9, **product(4, name="large", tax_code="1"), **read),
        commit(9, **product(3, name="inserted again")),
    )
    lake.write(
        "card_fingerprints",
        commit(1, **card(1, brand="visa")),
        commit(1, **card(2, brand="visa")),
        commit(2, _op="t"),
        commit(3, **card(2, brand="visa")),
        commit(3, **card(3, brand="visa")),
    )


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("versions"))
    lake.write("countries", {"iso2": "FR", "name": "France", "region": "Europe"})
    write_cases(lake)
    build(lake.settings, lake.cut(), *SELECTION)
    return lake


def versions(lake: Lake, dimension: str, identity: str, columns: str) -> list[tuple[Any, ...]]:
    """Each version of a row: the given columns, and the second of `EPOCH` at which it ends, None without end."""
    noun = dimension.removesuffix("s")
    ends = rows_of_build(
        lake.settings,
        f"select valid_from, valid_to, {columns} from marts.dim_{dimension} "
        f"where {noun}_id = '{identity}' order by version",
    )
    begins = [NO_BEGINNING, *(end for _, end, *_ in ends[:-1])]
    assert [begin for begin, *_ in ends] == begins
    return [(*values, end and (end - EPOCH).total_seconds()) for _, end, *values in ends]


def names(lake: Lake, number: int) -> list[tuple[Any, ...]]:
    return versions(lake, "merchants", key(number), "business_name")


def test_a_merchant_edited_in_two_transactions_of_one_batch_has_a_version_of_each(cases: Lake) -> None:
    assert names(cases, 1) == [("first", 2), ("second", 3), ("third", None)]


def test_of_the_changes_of_one_transaction_only_the_last_has_a_version(cases: Lake) -> None:
    assert names(cases, 2) == [("first", 2), ("last of its transaction", None)]


def test_a_row_that_is_read_again_or_changed_in_other_columns_keeps_its_version(cases: Lake) -> None:
    assert names(cases, 3) == [("same", None)]


def test_a_replayed_older_change_makes_no_version(cases: Lake) -> None:
    assert names(cases, 4) == [("first", 2), ("second", None)]


def test_an_unchanged_large_value_is_carried_also_when_it_is_null(cases: Lake) -> None:
    kept = versions(cases, "merchants", key(5), "business_name, mcc")
    assert kept == [("large", "1", 2), ("large", "2", 3), (None, "2", 4), (None, "3", None)]


def test_an_unchanged_value_is_not_carried_across_a_delete(cases: Lake) -> None:
    seven = versions(cases, "merchants", key(7), "business_name, is_deleted")
    assert seven == [("large", False, 2), ("large", True, 3), (None, False, None)]


def test_versions_follow_the_offsets_when_commit_times_step_back(cases: Lake) -> None:
    assert names(cases, 6) == [("first", 20), ("third, by a clock that stepped back", 21), ("fourth", None)]


def test_a_customer_who_left_and_came_back_has_three_versions(cases: Lake) -> None:
    left = versions(cases, "customers", key(1), "is_deleted, deleted_at, country_name, is_current")
    assert left == [
        (False, None, "France", False, 2),
        (True, at(2), "France", False, 3),
        (False, None, "France", True, None),
    ]


def test_a_row_that_is_deleted_and_inserted_again_has_a_version_without_it_between(cases: Lake) -> None:
    again = versions(cases, "customers", key(2), "is_deleted, country")
    assert again == [(False, "FR", 2), (True, "FR", 3), (False, "FR", None)]


def test_the_row_of_a_customer_who_left_is_deleted_without_another_version(cases: Lake) -> None:
    assert versions(cases, "customers", key(3), "is_deleted") == [(False, 2), (True, None)]


def test_of_a_row_whose_delete_alone_is_in_the_log_only_that_is_known(cases: Lake) -> None:
    assert versions(cases, "customers", key(4), "is_deleted, country") == [(True, None, None)]


def test_a_gap_ends_the_rows_that_are_not_read_again_where_the_log_ended_before_it(cases: Lake) -> None:
    def ends(number: int) -> list[tuple[Any, ...]]:
        return versions(cases, "products", key(number), "name, is_deleted")

    assert ends(1) == [("read again", False, None)]
    assert ends(2) == [("not read again", False, AFTER_TWO), ("not read again", True, None)]
    inserted = "inserted again"
    assert ends(3) == [(inserted, False, AFTER_TWO), (inserted, True, 9), (inserted, False, None)]


def test_an_unchanged_value_is_not_carried_across_a_gap(cases: Lake) -> None:
    four = versions(cases, "products", key(4), "name, tax_code")
    assert four == [("large", "1", 8), (None, "1", 9), ("large", "1", None)]


def test_a_truncate_deletes_every_row_when_it_is_committed(cases: Lake) -> None:
    def ends(number: int) -> list[tuple[Any, ...]]:
        return versions(cases, "cards", f"card {number}", "is_deleted, brand")

    assert ends(1) == [(False, "visa", 2), (True, "visa", None)]
    assert ends(2) == [(False, "visa", 2), (True, "visa", 3), (False, "visa", None)]
    assert ends(3) == [(False, "visa", None)]


# --- Random histories ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [range(1, 9), range(9, 17)], ids=lambda seeds: f"seeds from {seeds.start}")
def test_the_versions_of_random_histories_are_those_of_the_model_after_every_build(
    tmp_path: Path, seeds: range
) -> None:
    lake = Lake(tmp_path)
    histories = ProductHistories(lake, seeds)
    for write in (histories.begin, histories.lose_and_read_again, histories.truncate_and_go_on):
        write()
        build(lake.settings, lake.cut(), *SELECTION)
        told = rows_of_build(
            lake.settings,
            "select product_id, version, valid_from, valid_to, is_deleted, name, tax_code, active "
            "from marts.dim_products order by product_id, version",
        )
        expected = histories.versions()
        assert len(expected) > 300
        assert told == expected
