"""Search for support on a real mongod."""

import json
from collections.abc import Sequence

import pytest
from typer.testing import CliRunner

from stripe_platform.cli import app
from stripe_platform.features import search as search_module
from stripe_platform.features.connection import Documents
from stripe_platform.features.search import NothingToSearch, SearchTooLong, search_documents
from stripe_platform_tests.integration.features import rows
from stripe_platform_tests.integration.features.rows import DAY, Topics, take, uuid

NORTHWIND, TAILSPIN = 1, 2


@pytest.fixture(scope="module", autouse=True)
def support_case(documents: Documents) -> None:
    """Two merchants and a few of their charges, some of which are not to be seen."""
    topics = Topics()
    topics.write(
        "merchants", "c", rows.merchant(NORTHWIND, business_name="Northwind Books", statement_descriptor="NWB")
    )
    topics.write("merchants", "c", rows.merchant(TAILSPIN, business_name="Tailspin Toys", statement_descriptor="TOYS"))
    topics.write("merchants", "c", rows.merchant(3, business_name="Northwind Closed"))
    topics.write("merchants", "d", rows.merchant(3))
    topics.write("currencies", "c", rows.currency("jpy", 0))
    topics.write("exchange_rates", "c", rows.rate(0, "jpy", "0.0061500000"))
    charges = [
        rows.charge(10, description="Gift wrapping", statement_descriptor="NWB", created=20_000 * DAY),
        rows.charge(11, statement_descriptor="NWB SHOP", created=20_001 * DAY),
        rows.charge(12, statement_descriptor=None, created=20_002 * DAY, currency="jpy"),
        rows.charge(
            13,
            merchant_id=uuid(TAILSPIN),
            statement_descriptor="TOYS",
            status="failed",
            decline_code="insufficient_funds",
        ),
        rows.charge(14, merchant_id=uuid(TAILSPIN), statement_descriptor="TOYS", failure_code="expired_card"),
        rows.charge(15, description="Gift deleted"),
        rows.charge(16, description="Gift incomplete", payment_intent_id=uuid(99)),
    ]
    for charge in charges:
        topics.write("charges", "c", charge)
    topics.write("charges", "d", charges[5])
    take(documents, topics.written)


def ids(numbers: Sequence[int]) -> list[str]:
    return [f"ch_{rows.hex_digits(number)}" for number in numbers]


@pytest.mark.parametrize(
    ("text", "merchants", "charges"),
    [
        pytest.param("northwind", [NORTHWIND], [12, 11, 10], id="a merchant's name: its charges, newest first"),
        pytest.param("nwb shop", [NORTHWIND], [11, 10, 12], id="a descriptor: the best first, then others of it"),
        pytest.param("gift", [], [10], id="a description, without the deleted and the incomplete"),
        pytest.param("Insufficient funds", [], [13], id="a decline code in words"),
        pytest.param("insufficient_funds", [], [13], id="a decline code"),
        pytest.param('"expired_card"', [], [14], id="a failure code"),
        pytest.param("toys -insufficient_funds", [TAILSPIN], [14, 13], id="without a word, and the merchant's others"),
        pytest.param("closed", [], [], id="a merchant who is gone"),
        pytest.param("$where {}", [], [], id="nothing"),
    ],
)
def test_support_finds_by_words(documents: Documents, text: str, merchants: list[int], charges: list[int]) -> None:
    found = search_documents(documents, text)

    assert [merchant.id for merchant in found.merchants] == [f"acct_{rows.hex_digits(n)}" for n in merchants]
    assert [charge.id for charge in found.charges] == ids(charges)


def test_no_more_is_found_than_asked_for(documents: Documents) -> None:
    assert [charge.id for charge in search_documents(documents, "northwind", limit=2).charges] == ids([12, 11])


def test_a_search_before_the_first_documents_says_so(documents: Documents) -> None:
    with pytest.raises(NothingToSearch, match=r"no documents have been made.*stripe-platform stream") as told:
        search_documents(documents.client[f"{documents.name}_empty"], "northwind")
    assert "northwind" not in str(told.value)


def test_a_search_that_takes_too_long_says_so(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "SEARCH_LIMIT_MS", 1)
    with pytest.raises(SearchTooLong, match=r"did not end within 0\.001 s"):
        search_documents(documents, " ".join(f"word{number}" for number in range(20_000)))


@pytest.fixture
def command_line(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command line, led to the database."""
    host, port = documents.client.address or ("", 0)
    for name, value in (("HOST", host), ("PORT", str(port)), ("DATABASE", documents.name)):
        monkeypatch.setenv(f"MONGODB_{name}", value)
    return CliRunner()


def test_the_command_shows_amounts_in_major_units(command_line: CliRunner) -> None:
    shown = command_line.invoke(app, ["search", "northwind"], env={"COLUMNS": "200"})

    assert shown.exit_code == 0
    assert "Northwind Books" in shown.stdout
    assert "19.99 eur" in shown.stdout
    assert "1,999 jpy" in shown.stdout


def test_the_command_gives_scripts_one_document(command_line: CliRunner) -> None:
    found = json.loads(command_line.invoke(app, ["search", "funds", "--json"]).stdout)
    declined = json.loads(command_line.invoke(app, ["search", "insufficient funds", "--json"]).stdout)

    assert found == {"merchants": [], "charges": []}
    assert [charge["decline_code"] for charge in declined["charges"]] == ["insufficient_funds"]
    assert declined["charges"][0]["amount"] == 1999
