import pytest

from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.privacy.columns import (
    InvalidPersonalColumns,
    column_exclude_list,
    parse_personal_columns,
    personal_columns,
)


def test_the_committed_list_is_valid_and_names_the_contact_columns_of_a_customer() -> None:
    assert personal_columns()["customers"] == {"email", "name", "phone"}


def test_what_identifies_the_payer_or_the_payer_s_device_is_personal() -> None:
    assert personal_columns()["charges"] == {"device_id", "ip"}


def test_no_primary_key_of_a_captured_table_is_personal() -> None:
    assert not [table for table, names in personal_columns().items() if names & set(TABLES_BY_NAME[table].key)]


def test_debezium_gets_every_personal_column_by_its_full_name_in_a_fixed_order() -> None:
    names = column_exclude_list().split(",")

    assert names == sorted(names)
    assert "payments.customers.email" in names
    assert len(names) == sum(map(len, personal_columns().values()))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("customers:\n  id: who\n", r"customers\.id is in the primary key"),
        ("nobody:\n  email: contact\n", "'nobody' is not a captured table"),
        ("customers:\n  - email\n", "customers must map"),
        ("customers: {}\n", "customers must map"),
        ("customers:\n  email:\n", r"customers\.email must say what it is"),
        ("customers:\n  'email; drop': x\n", "not a column name"),
        ("customers:\n  email: a\ncustomers:\n  name: b\n", "customers is named twice"),
        ("customers:\n  email: a\n  email: b\n", "email is named twice"),
        ("- customers\n", "must map tables"),
        ("customers: [\n", "is not YAML"),
    ],
)
def test_a_list_that_cannot_be_trusted_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidPersonalColumns, match=reason):
        parse_personal_columns(text)
