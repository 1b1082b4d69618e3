"""`deploy/snowflake`: what no emulator runs is parsed at least, and the documentation says which is which."""

import logging
import re
from collections import Counter

import pytest
import sqlglot
import yaml
from sqlglot import exp

from stripe_platform.settings import PROJECT_ROOT, Settings
from stripe_platform.warehouse.snowflake.build import publication
from stripe_platform_tests.integration.snowflake_account import RUNS_ON_FAKESNOW, statements

# sqlglot knows no such statement, not even as an opaque one.
UNPARSED = "create or replace row access policy"
# sqlglot takes these as they are, without a look inside.
OPAQUE = (
    "create role",
    "create resource monitor",
    "create or replace masking policy",
    "create network policy",
    "create user",
    "alter warehouse",
    "alter user",
    "grant role",
    "grant ownership",
    "grant apply",
    "grant select",
    "grant usage on future",
    "grant usage on all",
    "grant usage on procedure",
)


def begins_with(statement: str, beginnings: tuple[str, ...]) -> bool:
    return " ".join(statement.lower().split()).startswith(beginnings)


@pytest.fixture(autouse=True)
def quiet_about_opaque_statements() -> None:
    logging.getLogger("sqlglot").setLevel(logging.ERROR)


@pytest.mark.parametrize("statement", statements(), ids=lambda statement: " ".join(statement.split())[:60])
def test_every_statement_is_one_of_snowflakes_dialect(statement: str) -> None:
    if begins_with(statement, (UNPARSED,)):
        with pytest.raises(sqlglot.ParseError):
            sqlglot.parse_one(statement, read="snowflake")
    else:
        parsed = sqlglot.parse_one(statement, read="snowflake")
        assert isinstance(parsed, exp.Command) <= begins_with(statement, OPAQUE)


def test_a_statement_that_is_none_is_found() -> None:
    with pytest.raises(sqlglot.ParseError):
        sqlglot.parse_one("create table stripe.meta.build (number number(38,0", read="snowflake")


def test_the_defaults_of_the_settings_are_names_that_the_deployment_makes() -> None:
    made = " ".join(statements())
    for setting in ("snowflake_database", "snowflake_warehouse", "snowflake_role", "snowflake_loader_role"):
        assert f"if not exists {Settings.model_fields[setting].default} " in made, setting
    assert f"if not exists stripe.{Settings.model_fields['snowflake_schema'].default}_build " in made


def test_every_column_that_tells_a_card_is_masked() -> None:
    (procedure,) = (made for made in statements() if made.startswith("create or replace procedure"))
    listed, of_cards = procedure.split("columns.column_name in (")[1].split(")", 1)
    masked = set(re.findall("'(\\w+)'", listed))
    models = yaml.safe_load((PROJECT_ROOT / "dbt" / "models" / "marts" / "dimensions.yml").read_text())["models"]
    (columns,) = ({column["name"] for column in model["columns"]} for model in models if model["name"] == "dim_cards")
    telling = {name.upper() for name in columns if name in {"card_id", "bin6", "last4"}}
    assert telling == {"CARD_ID", "BIN6", "LAST4"}
    assert telling | {"FINGERPRINT", "CARD_FINGERPRINT"} <= masked
    assert "columns.table_name = 'DIM_CARDS' and columns.column_name = 'VERSION_ID'" in of_cards


def test_what_is_masked_is_not_hashed_for_few_digits_are_guessed() -> None:
    (policy,) = (made for made in statements() if made.startswith("create or replace masking policy"))
    assert "sha" not in policy.lower()


def test_the_published_marts_promise_no_more_retention_than_the_clone_of_the_build_has() -> None:
    retention = dict(
        re.findall(r"schema if not exists stripe\.(\w+) data_retention_time_in_days = (\d)", " ".join(statements()))
    )
    assert retention["marts"] == retention["marts_build"]


def test_readers_are_let_in_by_the_procedure_that_the_publication_calls_before_the_swap() -> None:
    steps = [statement for _, statement in publication("marts", is_governed=True)]
    opened, swapped = (next(n for n, step in enumerate(steps) if step.startswith(word)) for word in ("call", "alter"))
    assert opened < swapped
    assert any("procedure stripe.governance.open_to_readers(schema_name varchar)" in made for made in statements())


def test_the_documentation_names_what_is_only_parsed() -> None:
    kinds = Counter(begins_with(statement, RUNS_ON_FAKESNOW) for statement in statements())
    assert kinds[True] >= 10
    text = (PROJECT_ROOT / "docs" / "snowflake.md").read_text().replace("\n", " ")
    assert "row access policy` is not even parsed" in text
    for word in ("roles", "warehouses", "resource monitors", "grants", "masking policy", "procedure", "network policy"):
        assert word in text.split("only parsed")[1], word
