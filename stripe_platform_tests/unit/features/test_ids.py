from stripe_platform.features.charges import source_row_of
from stripe_platform.features.ids import prefixed, prefixed_object, with_references

KEY = "0192f0c1-2345-7abc-8def-0123456789ab"
DIGITS = "0192f0c123457abc8def0123456789ab"


def test_an_id_is_the_prefix_of_its_table_and_the_digits_of_the_uuid() -> None:
    assert [prefixed(table, KEY) for table in ("charges", "merchants", "early_fraud_warnings")] == [
        f"ch_{DIGITS}",
        f"acct_{DIGITS}",
        f"issfr_{DIGITS}",
    ]


def test_the_object_of_an_event_has_its_own_prefix_or_stays_a_uuid() -> None:
    assert prefixed_object("payment_intent", KEY) == f"pi_{DIGITS}"
    assert prefixed_object("something_new", KEY) == KEY


def test_references_are_prefixed_and_renamed_and_null_ones_stay_null() -> None:
    row = {"id": KEY, "merchant_id": KEY, "customer_id": None, "payment_intent_id": KEY, "amount": 0}

    assert with_references(row) == {
        "id": KEY,
        "amount": 0,
        "merchant": f"acct_{DIGITS}",
        "customer": None,
        "payment_intent_id": f"pi_{DIGITS}",
    }


def test_a_reference_leads_back_to_its_source_row() -> None:
    assert source_row_of("payment_methods", f"pm_{DIGITS}") == f"payment_methods/{KEY}"
