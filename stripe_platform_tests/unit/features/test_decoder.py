"""One table's records become changes; those that cannot are told one by one, and the definition is followed."""

import json
import random
from typing import Any

import pytest

from stripe_platform.cdc.reader import Event
from stripe_platform.cdc.topics import topic_for
from stripe_platform.features.columns import NEEDED, ColumnsMissing
from stripe_platform.features.decoder import Columns, ColumnsDiffer, TableDecoder
from stripe_platform.oltp.catalog import Column

ID, AMOUNT = Column("id", "uuid", False, None, None), Column("amount", "int4", True, None, None)
NICKNAME = Column("nickname", "text", True, None, None)


class Catalog:
    """What PostgreSQL's catalog says, to be changed by the test."""

    def __init__(self, *columns: Column) -> None:
        self.columns: Columns = columns
        self.asked = 0

    def ask(self) -> Columns:
        self.asked += 1
        return self.columns


def decoder(catalog: Catalog, kinds: dict[str, str] | None = None) -> TableDecoder:
    return TableDecoder("payouts", catalog.columns, kinds=kinds or {}, placeholder="left out", ask=catalog.ask)


def good(id: str, **values: Any) -> bytes:
    source = {"table": "payouts", "ts_us": 1, "lsn": 1, "snapshot": "false"}
    return json.dumps({"op": "c", "after": {"id": id, "amount": 1} | values, "source": source}).encode()


def events(*values: bytes | None) -> list[Event]:
    return [Event(topic_for("payouts"), 0, offset, value, None) for offset, value in enumerate(values)]


POISON = {
    b"not JSON": "not valid JSON",
    b"\xff\xfe": "not valid JSON",
    b"[1]": "not a JSON object",
    b'{"op": "c"}': "after is missing",
    good("a").replace(b'"c"', b'"x"'): "op is missing or none of c, u, d, r, t",
    good("a", amount="4242424242424242"): "after.amount is not of type int32",
    good("a").replace(b"payouts", b"charges"): "source.table is another one",
}


@pytest.mark.parametrize(("value", "reason"), POISON.items())
def test_a_record_that_is_no_change_is_told_with_its_place_and_the_others_are_decoded(
    value: bytes, reason: str
) -> None:
    decoded = decoder(Catalog(ID, AMOUNT)).decode(events(good("a"), value, good("b")))
    assert [(change.offset, change.row["id"]) for change in decoded.changes] == [(0, "a"), (2, "b")]
    assert [(refused.offset, refused.reason) for refused in decoded.refused] == [(1, reason)]


def test_among_many_good_records_each_bad_one_is_found_and_the_order_stays() -> None:
    chance = random.Random(5)  # noqa: S311
    bad = {offset: chance.choice(list(POISON)) for offset in chance.sample(range(300), 40)}
    records = events(*(bad.get(offset, good(str(offset))) for offset in range(300)))
    decoded = decoder(Catalog(ID, AMOUNT)).decode(records)
    assert [change.offset for change in decoded.changes] == [offset for offset in range(300) if offset not in bad]
    assert {refused.offset: refused.reason for refused in decoded.refused} == {
        offset: POISON[value] for offset, value in bad.items()
    }


def test_tombstones_are_neither_changes_nor_refused() -> None:
    decoded = decoder(Catalog(ID, AMOUNT)).decode(events(None, good("a"), None))
    assert ([change.offset for change in decoded.changes], decoded.refused) == ([1], [])


def test_a_column_that_came_is_followed_by_asking_the_catalog_once() -> None:
    catalog = Catalog(ID, AMOUNT)
    table = decoder(catalog)
    catalog.columns = (ID, AMOUNT, NICKNAME)
    for _ in range(2):
        decoded = table.decode(events(good("a"), good("b", nickname="bee")))
        assert [change.row["nickname"] for change in decoded.changes] == [None, "bee"]
    assert catalog.asked == 1
    assert table.kinds["nickname"] == "text"


def test_a_dropped_column_is_absent_although_older_records_carry_it() -> None:
    catalog = Catalog(ID, AMOUNT)
    decoded = decoder(catalog, {"nickname": "text"}).decode(events(good("a", nickname="bee"), good("b")))
    assert [set(change.row) for change in decoded.changes] == [{"id", "amount"}, {"id", "amount"}]
    assert catalog.asked == 1


def test_a_wider_integer_is_the_same_kind() -> None:
    catalog = Catalog(ID, AMOUNT)
    table = decoder(catalog)
    catalog.columns = (ID, Column("amount", "int8", True, None, None))
    decoded = table.decode(events(good("a", amount=2**40)))
    assert [change.row["amount"] for change in decoded.changes] == [2**40]


@pytest.mark.parametrize("stored", [{"amount": "text"}, {"amount": "text", "gone": "integer"}])
def test_a_column_of_another_kind_than_the_stored_one_stops_the_table(stored: dict[str, str]) -> None:
    told = r"amount was text and is integer.*stripe-platform rebuild payouts"
    with pytest.raises(ColumnsDiffer, match=told):
        decoder(Catalog(ID, AMOUNT), stored)


def test_a_type_that_changes_while_records_are_read_stops_the_table_and_no_record_is_refused() -> None:
    catalog = Catalog(ID, AMOUNT)
    table = decoder(catalog)
    catalog.columns = (ID, Column("amount", "text", True, None, None))
    with pytest.raises(ColumnsDiffer, match="amount was integer and is text"):
        table.decode(events(good("a"), good("b", amount="much")))


CARD = tuple(Column(name, "text", True, None, None) for name in NEEDED["card_fingerprints"])
WITHOUT_COUNTRY = tuple(column for column in CARD if column.name != "issuer_country")
STOPPED = r"card_fingerprints stop.*no captured column issuer_country in it.*stripe-platform rebuild card_fingerprints"


def cards(*rows: dict[str, str | None]) -> list[Event]:
    source = {"table": "card_fingerprints", "ts_us": 1, "lsn": 1, "snapshot": "false"}
    values = [json.dumps({"op": "u", "after": row, "source": source}).encode() for row in rows]
    return [Event(topic_for("card_fingerprints"), 0, offset, value, None) for offset, value in enumerate(values)]


def card(*columns: Column) -> dict[str, str | None]:
    return dict.fromkeys(column.name for column in columns) | {"fingerprint": "a"}


def cards_decoder(catalog: Catalog) -> TableDecoder:
    return TableDecoder("card_fingerprints", catalog.columns, kinds={}, placeholder="left out", ask=catalog.ask)


def test_a_table_without_a_needed_column_is_stopped_at_the_start() -> None:
    with pytest.raises(ColumnsMissing, match=STOPPED):
        cards_decoder(Catalog(*WITHOUT_COUNTRY))


@pytest.mark.parametrize("now", [(), (NICKNAME,)], ids=["dropped", "renamed"])
def test_a_needed_column_that_goes_while_records_are_read_stops_the_table_before_it_is_null(
    now: tuple[Column, ...],
) -> None:
    catalog = Catalog(*CARD)
    table = cards_decoder(catalog)
    assert len(table.decode(cards(card(*CARD))).changes) == 1
    catalog.columns = (*WITHOUT_COUNTRY, *now)
    with pytest.raises(ColumnsMissing, match=STOPPED):
        table.decode(cards(card(*CARD), card(*catalog.columns)))


def test_old_records_that_lack_a_needed_column_which_the_table_has_are_read_and_it_is_asked_for_once() -> None:
    catalog = Catalog(*CARD)
    table = cards_decoder(catalog)
    for _ in range(3):
        (change,) = table.decode(cards(card(*WITHOUT_COUNTRY))).changes
        assert change.row["issuer_country"] is None
    assert catalog.asked == 1
