from hypothesis import given
from hypothesis import strategies as st

from stripe_platform.oltp.parties import card_attributes, merchant_attributes

currencies = st.sampled_from(["eur", "usd", "jpy", "kwd", "xof"])
refs = st.text(min_size=1, max_size=40)


@given(refs, currencies)
def test_the_same_reference_makes_the_same_merchant_and_card(ref: str, currency: str) -> None:
    assert merchant_attributes(ref, currency) == merchant_attributes(ref, currency)
    assert card_attributes(ref, currency) == card_attributes(ref, currency)


@given(refs, currencies)
def test_attributes_fit_their_columns(ref: str, currency: str) -> None:
    merchant, card = merchant_attributes(ref, currency), card_attributes(ref, currency)

    assert len(merchant["statement_descriptor"]) <= 22
    assert merchant["mcc"].isdigit()
    assert len(card["fingerprint"]) == 32
    assert len(card["bin6"]) == 6
    assert len(card["last4"]) == 4


def test_a_fingerprint_does_not_show_the_reference() -> None:
    assert "c596" not in card_attributes("c596", "eur")["fingerprint"]
    assert card_attributes("c596", "eur")["fingerprint"] != card_attributes("c597", "eur")["fingerprint"]
