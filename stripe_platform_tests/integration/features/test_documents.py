"""What becomes of single changes: values, parents that come late, deletes, and changes that cannot be documents."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError, OperationFailure
from pymongo.read_concern import ReadConcern

from stripe_platform.features import batch, projector, writing
from stripe_platform.features.columns import NEEDED
from stripe_platform.features.connection import Documents
from stripe_platform.features.encoding import RAW
from stripe_platform.features.projection import Unprojectable
from stripe_platform.features.projector import Projected
from stripe_platform.features.search import search_documents
from stripe_platform.features.sink import TilesOfCharges
from stripe_platform_tests.integration.features import rows
from stripe_platform_tests.integration.features.rows import DAY, Row, Topics, take, uuid

SECRET = "a value of the row"
CHILDREN = {"refunds": rows.refund, "disputes": rows.dispute, "early_fraud_warnings": rows.warning}


@pytest.fixture
def topics(documents: Documents) -> Topics:
    """Empty topics, and no document."""
    rows.clear(documents)
    return Topics()


def the_charge(documents: Documents, number: int = 10) -> Row:
    found = documents["charges"].find_one({"_id": f"ch_{rows.hex_digits(number)}"})
    assert found is not None
    return found


def test_a_charge_is_one_document_with_all_that_belongs_to_it(documents: Documents, topics: Topics) -> None:
    charge = rows.charge(10, payment_intent_id=uuid(20), payment_method_id=uuid(30), customer_id=uuid(2))
    topics.write("payment_intents", "c", rows.intent(20))
    topics.write("card_fingerprints", "c", rows.card())
    topics.write("payment_methods", "c", rows.method(30))
    topics.write("charges", "c", charge)
    topics.write("charge_outcomes", "c", rows.outcome(charge))
    topics.write("refunds", "c", rows.refund(40, charge, created=charge["created"] + 2))
    topics.write("refunds", "c", rows.refund(41, charge, created=charge["created"] + 1))
    topics.write("disputes", "c", rows.dispute(50, charge, created=charge["created"] + 9))
    topics.write("early_fraud_warnings", "c", rows.warning(60, charge, created=charge["created"] + 8))

    assert take(documents, topics.written) == Projected(applied=9, stale=0, documents=4)

    found = the_charge(documents)
    assert found["merchant"] == f"acct_{rows.hex_digits(1)}"
    assert found["customer"] == f"cus_{rows.hex_digits(2)}"
    assert found["payment_intent"]["id"] == found["payment_intent_id"] == f"pi_{rows.hex_digits(20)}"
    assert found["card"] == {
        "fingerprint": "fingerprint-0001",
        "brand": "visa",
        "funding": "credit",
        "issuer_country": "DE",
        "last4": "4242",
        "exp_month": 12,
        "exp_year": 2031,
        "wallet": None,
    }
    assert found["outcome"]["seller_message"] == "Payment complete."
    assert [refund["id"] for refund in found["refunds"]] == [f"re_{rows.hex_digits(n)}" for n in (41, 40)]
    assert found["fraud_known_at"] == charge["created"] + 8
    assert found["reporting_amount"] == 1999
    assert not {"incomplete", "incomplete_since", "deleted", "expires"} & found.keys()


def test_a_child_that_comes_before_its_charge_waits_in_an_incomplete_document(
    documents: Documents, topics: Topics
) -> None:
    charge = rows.charge(10)
    take(documents, [topics.write("refunds", "c", rows.refund(40, charge))])
    waiting = the_charge(documents)

    take(documents, [topics.write("charges", "c", charge)])

    assert waiting["incomplete"] == ["charge"]
    assert datetime.now(UTC) - waiting["incomplete_since"] < timedelta(minutes=1)
    assert "incomplete" not in the_charge(documents)
    assert len(the_charge(documents)["refunds"]) == 1


def test_a_charge_says_which_parents_it_waits_for_and_since_when_until_they_come(
    documents: Documents, topics: Topics
) -> None:
    charge = rows.charge(10, payment_intent_id=uuid(20), payment_method_id=uuid(30), currency="usd")
    take(documents, [topics.write("charges", "c", charge)])
    since = the_charge(documents)["incomplete_since"]
    parents = [
        ("payment_methods", rows.method(30), ["payment_intent", "card", "exchange_rate"]),
        ("card_fingerprints", rows.card(), ["payment_intent", "exchange_rate"]),
        ("currencies", rows.currency("usd", 2), ["payment_intent", "exchange_rate"]),
        ("exchange_rates", rows.rate(19_990, "usd", "0.5000000000"), ["payment_intent"]),
    ]

    for table, row, missing in parents:
        take(documents, [topics.write(table, "c", row)])
        assert the_charge(documents)["incomplete"] == missing
        assert the_charge(documents)["incomplete_since"] == since
    take(documents, [topics.write("payment_intents", "c", rows.intent(20))])

    assert "incomplete" not in the_charge(documents)
    assert the_charge(documents)["reporting_amount"] == 1000


def test_a_refund_that_is_read_after_a_newer_change_of_its_charge_is_added_to_it(
    documents: Documents, topics: Topics
) -> None:
    charge = rows.charge(10)
    made = topics.write("charges", "c", charge)
    refund = topics.write("refunds", "c", rows.refund(40, charge))
    newer = topics.write("charges", "u", charge | {"amount_refunded": 100})

    take(documents, [made, newer])
    take(documents, [refund])

    assert the_charge(documents)["amount_refunded"] == 100
    assert len(the_charge(documents)["refunds"]) == 1


@pytest.mark.parametrize("size", [1, 100])
def test_values_are_stored_as_they_are_and_removed_keys_vanish(documents: Documents, topics: Topics, size: int) -> None:
    metadata = {"$x": "$amount", "$set": {"a.b": {"": "$$ROOT"}}, ".": [{"$inc": 1}], "$ref": "a", "$id": 1}
    first = rows.charge(10, description="$merchant", metadata={"gone": 1, "kept": {"gone": 2}})
    second = first | {"metadata": metadata, "amount": 2**63 - 1, "amount_refunded": -(2**63), "created": 1}
    topics.write("charges", "c", first)
    topics.write("charges", "u", second)
    topics.write("charges", "u", second | {"status": "pending"})

    take(documents, topics.written, size=size)

    found = documents.get_collection("charges", codec_options=RAW).find_one()
    assert isinstance(found, RawBSONDocument)
    assert plain(found["metadata"]) == metadata
    assert found["description"] == "$merchant"
    assert [found[name] for name in ("amount", "amount_refunded", "created")] == [2**63 - 1, -(2**63), 1]


def plain(value: Any) -> Any:
    """A raw document as plain values, whatever its keys look like."""
    if isinstance(value, RawBSONDocument):
        return {name: plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("table", "row", "where"),
    [
        ("charges", rows.charge(10, metadata={"$a": 1}), ("charges", "metadata")),
        ("refunds", rows.refund(40, rows.charge(10), metadata={"$a": 1}), ("charges", "refunds.metadata")),
        ("payment_intents", rows.intent(20, metadata={"$a": 1}), ("source_rows", "row.metadata")),
        ("merchants", rows.merchant(1, metadata={"$a": 1}), ("merchants", "metadata")),
    ],
)
def test_an_unchanged_large_value_is_kept(
    documents: Documents, topics: Topics, table: str, row: Row, where: tuple[str, str]
) -> None:
    topics.write(table, "c", row)
    # In one batch with the value, and in a later one.
    topics.write(table, "u", row | {"livemode": True}, ["metadata"])
    topics.write(table, "u", row | {"livemode": False}, ["metadata"])

    assert take(documents, topics.written, size=2).applied == 3

    collection, path = where
    assert documents[collection].distinct(path) == [{"$a": 1}]


@pytest.mark.parametrize("before", ["nothing", "delete"])
def test_an_unchanged_value_of_which_nothing_is_stored_is_refused(
    documents: Documents, topics: Topics, before: str
) -> None:
    charge = rows.charge(10)
    if before == "delete":
        take(documents, [topics.write("charges", "c", charge), topics.write("charges", "d", charge)])
    update = topics.write("charges", "u", charge, ["metadata"])

    with pytest.raises(Unprojectable, match="no earlier value is stored of the unchanged column metadata"):
        take(documents, [update])


def test_a_deleted_charge_keeps_its_markers_two_weeks_and_none_of_its_values(
    documents: Documents, topics: Topics
) -> None:
    charge = rows.charge(10, payment_intent_id=uuid(20), description=SECRET)
    intent = topics.write("payment_intents", "c", rows.intent(20))
    made, gone = topics.write("charges", "c", charge), topics.write("charges", "d", charge)
    take(documents, [intent, made, gone])
    deleted = the_charge(documents)

    assert take(documents, [made, gone]) == Projected(applied=0, stale=2, documents=0)

    assert the_charge(documents) == deleted
    assert deleted["deleted"] is True
    assert SECRET not in str(deleted)
    assert timedelta(days=13) < deleted["expires"] - datetime.now(UTC) <= timedelta(days=14)


def test_a_row_that_comes_back_after_its_delete_is_there_again(documents: Documents, topics: Topics) -> None:
    charge = rows.charge(10)
    refund = rows.refund(40, charge)
    topics.write("charges", "c", charge)
    for op in "cdc":
        topics.write("refunds", op, refund)
    topics.write("charges", "d", charge)
    topics.write("charges", "c", charge | {"amount": 7})

    take(documents, topics.written)

    assert the_charge(documents)["amount"] == 7
    assert "deleted" not in the_charge(documents)
    assert len(the_charge(documents)["refunds"]) == 1


def test_the_delete_of_a_child_finds_the_charge_that_it_does_not_name(documents: Documents, topics: Topics) -> None:
    charge = rows.charge(10)
    topics.write("charges", "c", charge)
    for number, (table, make) in enumerate(CHILDREN.items(), 40):
        topics.write(table, "c", make(number, charge))
    take(documents, topics.written)
    there = the_charge(documents)

    take(documents, [topics.write(table, "d", {"id": uuid(n)}) for n, table in enumerate(CHILDREN, 40)])

    assert [len(there[table]) for table in CHILDREN] == [1, 1, 1]
    assert [the_charge(documents)[table] for table in CHILDREN] == [[], [], []]
    assert the_charge(documents)["fraud_known_at"] is None


@pytest.mark.parametrize("table", CHILDREN)
@pytest.mark.parametrize("before", [[], ["c", "d"]], ids=["never seen", "deleted before"])
@pytest.mark.parametrize("size", [1, 100])
def test_a_child_that_was_deleted_while_its_insert_waited_stays_deleted_when_that_comes(
    documents: Documents, topics: Topics, table: str, before: list[str], size: int
) -> None:
    charge = rows.charge(10)
    child = CHILDREN[table](40, charge)
    take(documents, [topics.write("charges", "c", charge), *(topics.write(table, op, child) for op in before)])
    waiting, gone = topics.write(table, "c", child), topics.write(table, "d", child)

    assert take(documents, [gone]).applied == 1
    right = rows.contents(documents)
    replayed = take(documents, [waiting, gone], size=size)

    assert replayed == Projected(applied=0, stale=2, documents=0)
    assert rows.contents(documents) == right
    assert the_charge(documents)[table] == []
    assert the_charge(documents)["fraud_known_at"] is None


def test_a_child_that_comes_back_after_an_unknown_delete_is_there_again(documents: Documents, topics: Topics) -> None:
    charge = rows.charge(10)
    refund = rows.refund(40, charge)
    take(documents, [topics.write("charges", "c", charge), topics.write("refunds", "d", refund)])

    assert take(documents, [topics.write("refunds", "c", refund)]).applied == 1

    assert len(the_charge(documents)["refunds"]) == 1


def test_the_marker_of_an_unknown_child_leaves_with_the_others(documents: Documents, topics: Topics) -> None:
    unknown = topics.write("refunds", "d", {"id": uuid(40)})

    assert take(documents, [unknown, unknown]) == Projected(applied=1, stale=1, documents=1)

    (marker,) = documents["source_rows"].find()
    assert marker["_id"] == f"refunds/{uuid(40)}"
    assert timedelta(days=13) < marker["expires"] - datetime.now(UTC) <= timedelta(days=14)


def test_a_rate_that_comes_late_revalues_the_charges_of_its_days_alone(documents: Documents, topics: Topics) -> None:
    noon = DAY // 2
    days = {number: 20_000 + number - 10 for number in range(10, 15)}
    topics.write("currencies", "c", rows.currency("usd", 2))
    topics.write("exchange_rates", "c", rows.rate(20_000, "usd", "1.0000000000"))
    topics.write("exchange_rates", "c", rows.rate(20_004, "usd", "4.0000000000"))
    for number, day in days.items():
        topics.write("charges", "c", rows.charge(number, currency="usd", amount=10, created=day * DAY + noon))
    take(documents, topics.written)

    late = take(documents, [topics.write("exchange_rates", "c", rows.rate(20_002, "usd", "2.0000000000"))])

    amounts = {number: the_charge(documents, number)["reporting_amount"] for number in days}
    assert amounts == {10: 10, 11: 10, 12: 20, 13: 20, 14: 40}
    assert the_charge(documents, 13)["exchange_rate"] == {"day": 20_002, "rate": "2.0000000000", "exponent": 2}
    assert late.documents == 3


def test_the_last_rate_counts_however_old_and_whatever_older_one_the_batch_brings(
    documents: Documents, topics: Topics
) -> None:
    topics.write("currencies", "c", rows.currency("usd", 2))
    topics.write("exchange_rates", "c", rows.rate(19_900, "usd", "2.0000000000"))
    take(documents, topics.written)

    older = topics.write("exchange_rates", "c", rows.rate(19_800, "usd", "4.0000000000"))
    charge = rows.charge(10, currency="usd", amount=100, created=20_000 * rows.DAY)
    take(documents, [older, topics.write("charges", "c", charge)])

    assert the_charge(documents)["exchange_rate"] == {"day": 19_900, "rate": "2.0000000000", "exponent": 2}


def test_many_charges_are_revalued_in_slices_before_the_rate_and_a_crash_between_them_costs_nothing(
    documents: Documents, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "SLICE", 10)
    topics.write("currencies", "c", rows.currency("usd", 2))
    for number in range(100, 135):
        topics.write("charges", "c", rows.charge(number, currency="usd", amount=10))
    take(documents, topics.written)
    batch = [topics.write("exchange_rates", "c", rows.rate(19_000, "usd", "2.0000000000"))]

    def revalued() -> int:
        return documents["charges"].count_documents({"reporting_amount": 20})

    # Two slices, then the end: what was read ahead is lost.
    for ids in islice(projector.ahead(documents, batch), 2):
        with documents.client.start_session() as session, session.start_transaction():
            assert projector.refresh(session, documents, batch, ids) == 10
    assert revalued() == 20
    assert documents["source_rows"].count_documents({"_id": "exchange_rates/19000/usd"}) == 0

    assert sum(len(ids) for ids in projector.ahead(documents, batch)) == 15
    take(documents, batch)

    assert revalued() == 35
    assert list(projector.ahead(documents, batch)) == []


def test_an_amount_that_is_too_large_in_eur_leaves_the_charge_incomplete(documents: Documents, topics: Topics) -> None:
    topics.write("currencies", "c", rows.currency("kwd", 3))
    topics.write("exchange_rates", "c", rows.rate(20_000, "kwd", "99.0000000000"))
    topics.write("charges", "c", rows.charge(10, currency="kwd", amount=2**63 - 1))

    take(documents, topics.written)

    assert the_charge(documents)["reporting_amount"] is None
    assert the_charge(documents)["incomplete"] == ["exchange_rate"]


def test_a_card_that_changes_is_embedded_anew_in_its_charges(documents: Documents, topics: Topics) -> None:
    topics.write("card_fingerprints", "c", rows.card())
    topics.write("payment_methods", "c", rows.method(30))
    for number in (10, 11):
        topics.write("charges", "c", rows.charge(number, payment_method_id=uuid(30)))
    take(documents, topics.written)

    of_no_account = take(documents, [topics.write("payment_methods", "u", rows.method(30, cvc_check="fail"))])
    cards = []
    for table, row in (
        ("card_fingerprints", rows.card(brand="amex")),
        ("payment_methods", rows.method(30, exp_year=2)),
    ):
        take(documents, [topics.write(table, "u", row)])
        cards += [the_charge(documents, number)["card"] for number in (10, 11)]

    assert [(card["brand"], card["exp_year"]) for card in cards] == [("amex", 2031)] * 2 + [("amex", 2)] * 2
    assert of_no_account.documents == 1


def test_an_event_leaves_by_its_own_time_and_names_its_object(documents: Documents, topics: Topics) -> None:
    take(documents, [topics.write("events", "c", rows.event(70, created=40_000 * DAY + 123_456))])

    found = documents["events"].find_one()
    assert found is not None
    assert found["object_id"] == f"ch_{rows.hex_digits(70)}"
    assert found["created"] == 40_000 * DAY + 123_456
    assert found["created_at"] == datetime(1970, 1, 1, microsecond=123_000, tzinfo=UTC) + timedelta(days=40_000)


@pytest.mark.parametrize(
    ("table", "row", "reason"),
    [
        pytest.param("merchants", rows.merchant(1, business_name=None), "validator refuses it", id="validator"),
        pytest.param("events", rows.event(70, created=2**62), "column created is outside the years", id="time"),
        pytest.param("exchange_rates", rows.rate(1, "usd", "NaN"), "column rate is not a number", id="rate"),
    ],
)
def test_a_change_that_cannot_be_a_document_is_named_and_nothing_of_its_batch_is_written(
    documents: Documents, topics: Topics, table: str, row: Row, reason: str
) -> None:
    good = topics.write("customers", "c", rows.customer(2, metadata={"a": SECRET}))
    bad = topics.write(table, "c", row)

    with pytest.raises(Unprojectable, match=reason) as refused:
        take(documents, [good, bad])

    assert [change for change, _ in refused.value.refused] == [bad]
    assert refused.value.__context__ is None
    assert not any(rows.contents(documents).values())


def test_all_that_cannot_be_documents_are_named_at_once(documents: Documents, topics: Topics) -> None:
    charge = rows.charge(10)
    take(documents, [topics.write("merchants", "c", rows.merchant(1)), topics.write("charges", "c", charge)])
    mixed = [
        topics.write("merchants", "c", rows.merchant(2, business_name=None)),
        topics.write("merchants", "c", rows.merchant(3, metadata={"a": "$x"})),
        topics.write("merchants", "u", rows.merchant(1, business_name=None)),
    ]
    of_values = [topics.write("customers", "c", rows.customer(n, metadata={"a": 2**63})) for n in (5, 6)]

    with pytest.raises(Unprojectable, match="validator refuses it") as by_server:
        take(documents, mixed)
    with pytest.raises(Unprojectable, match="beyond 64 bits") as by_value:
        take(documents, of_values)

    assert [change for change, _ in by_server.value.refused] == [mixed[0], mixed[2]]
    assert [change for change, _ in by_value.value.refused] == of_values


def test_a_failure_that_judges_no_document_is_not_one_of_changes(documents: Documents, topics: Topics) -> None:
    documents["merchants"].create_index("business_name", unique=True, name="unasked")
    try:
        take(documents, [topics.write("merchants", "c", rows.merchant(1))])
        with pytest.raises(BulkWriteError):
            take(documents, [topics.write("merchants", "c", rows.merchant(2))])
    finally:
        documents["merchants"].drop_index("unasked")


def test_a_truncate_is_refused(documents: Documents, topics: Topics) -> None:
    with pytest.raises(Unprojectable, match="the table was truncated"):
        take(documents, [topics.write("charges", "t", {})])


def test_the_child_that_makes_a_document_too_large_is_the_one_that_is_refused(
    documents: Documents, topics: Topics
) -> None:
    charge = rows.charge(10)
    large = {"x": "y" * 6_000_000}
    topics.write("charges", "c", charge)
    fitting = [topics.write("refunds", "c", rows.refund(number, charge, metadata=large)) for number in (40, 41)]
    take(documents, topics.written)
    beyond = topics.write("refunds", "c", rows.refund(42, charge, metadata=large))

    with pytest.raises(Unprojectable, match="larger than 16 MiB") as refused:
        take(documents, [topics.write("merchants", "c", rows.merchant(1)), beyond])

    assert [change for change, _ in refused.value.refused] == [beyond]
    assert len(the_charge(documents)["refunds"]) == len(fitting)


def test_a_batch_that_passes_a_failure_between_two_chunks_is_written_once_with_its_tiles(
    documents: Documents, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_WRITTEN_AT_ONCE", 2)
    changes = [topics.write("charges", "c", rows.charge(number)) for number in range(10, 17)]
    sent: list[int] = []

    write_all = writing.write_all

    def failing_once(*arguments: Any) -> list[writing.Write]:
        sent.append(len(arguments[-1]))
        if len(sent) == 3:
            raise OperationFailure("of a test", 112, {"errorLabels": ["TransientTransactionError"]})
        return write_all(*arguments)

    monkeypatch.setattr(writing, "write_all", failing_once)
    with documents.client.start_session() as session:
        done = session.with_transaction(
            lambda session: projector.project(session, documents, changes, TilesOfCharges(documents)),
            read_concern=ReadConcern("snapshot"),
        )

    assert done.written["charges"] == len(changes) == documents["charges"].count_documents({})
    (day,) = documents["merchant_features"].find()
    assert day["payments"] == len(changes)
    assert sum(sent) > len(changes)


def test_a_failed_transaction_leaves_its_error_to_the_caller(documents: Documents, topics: Topics) -> None:
    change = topics.write("merchants", "c", rows.merchant(1))

    with documents.client.start_session() as one, documents.client.start_session() as other:
        one.start_transaction()
        other.start_transaction()
        projector.project(one, documents, [change])
        # For the caller, who begins the transaction again.
        with pytest.raises(OperationFailure) as conflict:
            projector.project(other, documents, [change])
        one.abort_transaction()

    assert conflict.value.has_error_label("TransientTransactionError")


def test_the_needed_columns_are_all_that_documents_features_and_search_rely_on(
    documents: Documents, topics: Topics
) -> None:
    charge = rows.charge(10, payment_intent_id=uuid(20), payment_method_id=uuid(30), currency="usd")
    of_tables = {
        "currencies": rows.currency("usd", 2),
        "exchange_rates": rows.rate(20_000, "usd", "2.0000000000"),
        "merchants": rows.merchant(1),
        "customers": rows.customer(2),
        "events": rows.event(70),
        "charges": charge,
        "charge_outcomes": rows.outcome(charge),
        **{table: make(40, charge) for table, make in CHILDREN.items()},
        "payment_intents": rows.intent(20),
        "card_fingerprints": rows.card(),
        "payment_methods": rows.method(30),
    }
    assert of_tables.keys() == NEEDED.keys() == set(projector.TABLES)
    changed = {"brand": "amex", "exp_year": 2, "exponent": 3, "rate": "3.0000000000"}
    for op in "cud":
        for table, row in of_tables.items():
            needed = {name: row[name] for name in NEEDED[table]}
            if op == "u":
                needed |= {name: value for name, value in changed.items() if name in needed}
            take(documents, [topics.write(table, op, needed)], features=TilesOfCharges(documents))
        if op == "u":
            assert the_charge(documents)["card"]["brand"] == "amex"
            assert the_charge(documents)["reporting_amount"] == 600
            assert [found.status for found in search_documents(documents, "northwind").charges] == ["succeeded"]


def test_a_batch_tells_which_collections_it_changed_and_a_stale_one_changes_none(
    documents: Documents, topics: Topics
) -> None:
    topics.write("payment_methods", "c", rows.method(30))
    topics.write("charges", "c", rows.charge(10, payment_method_id=uuid(30), customer_id=None))
    topics.write("merchants", "c", rows.merchant(1))
    first = rows.take_batch(documents, topics.written, TilesOfCharges(documents))
    tiles = {"card_features": 1, "merchant_features": 1}
    assert first.written == {"source_rows": 1, "charges": 1, "merchants": 1, **tiles}
    again = rows.take_batch(documents, topics.written, TilesOfCharges(documents))
    assert (again.stale, again.written) == (3, {})
