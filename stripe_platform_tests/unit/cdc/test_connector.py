import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from stripe_platform.cdc.connector import (
    CONFIG_FILE,
    POSITION_GONE,
    ConnectorState,
    connector_config,
    failure_of,
)
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.privacy.columns import personal_columns
from stripe_platform.settings import Settings

REFERENCE = re.compile(r"\$\{env:[A-Z_]+\}")
RUNS = ConnectorState("payments", "RUNNING", ("RUNNING",))


def included(table: str) -> bool:
    """As Debezium decides: some pattern matches the whole name."""
    return any(re.fullmatch(pattern, table) for pattern in connector_config()["table.include.list"].split(","))


@pytest.mark.parametrize("file", sorted(CONFIG_FILE.parent.glob("*.json")), ids=lambda file: file.name)
def test_no_connector_file_holds_an_address_or_a_secret(file: Path) -> None:
    config = json.loads(file.read_text())
    by_reference = {
        key for key in config if re.search(r"password|secret|placeholder|hostname|database\.(port|dbname)", key)
    }
    assert "database.password" in by_reference
    assert {key for key in by_reference if not REFERENCE.fullmatch(config[key])} == set()


def test_the_file_repeats_no_fact_that_another_room_owns() -> None:
    config = json.loads(CONFIG_FILE.read_text())
    filled_in = connector_config().keys() - config.keys()
    assert filled_in >= {"table.include.list", "column.exclude.list", "publication.name", "slot.name"}
    assert [table.name for table in CAPTURED_TABLES if table.name in CONFIG_FILE.read_text()] == []


def test_every_captured_table_is_included() -> None:
    assert all(included(table.qualified) for table in CAPTURED_TABLES)


@pytest.mark.parametrize(
    "table",
    [
        "payments.charges_default",
        "payments.charges_y2026m01",
        "payments.imported_payments",
        "payments_charges",
    ],
)
def test_leaf_partitions_and_tables_that_are_not_captured_are_left_out(table: str) -> None:
    assert not included(table)


def test_every_personal_column_is_excluded() -> None:
    excluded = connector_config()["column.exclude.list"].split(",")
    expected = {f"payments.{table}.{column}" for table, columns in personal_columns().items() for column in columns}
    assert expected
    assert set(excluded) == expected


def test_settings_that_would_lose_data_silently_by_default_are_set() -> None:
    config = connector_config()
    assert config["exactly.once.support"] == "required"
    assert config["skipped.operations"] == "none"
    assert config["publication.autocreate.mode"] == "disabled"
    assert config["event.processing.failure.handling.mode"] == "fail"
    assert int(config["heartbeat.interval.ms"]) > 0
    assert int(config["max.queue.size.in.bytes"]) > 0
    assert config["decimal.handling.mode"] == "string"
    # With `no_data` a start without stored offsets looks like any other.
    assert config["snapshot.mode"] == "initial"


def test_no_table_is_read_by_debezium_s_initial_snapshot() -> None:
    pattern = connector_config()["snapshot.include.collection.list"]
    assert not any(re.fullmatch(pattern, table.qualified) for table in CAPTURED_TABLES)


def test_a_connector_without_a_task_does_not_run() -> None:
    assert RUNS.is_running
    assert not replace(RUNS, tasks=()).is_running


@pytest.mark.parametrize("state", ["PAUSED", "FAILED", "UNASSIGNED", "RESTARTING"])
def test_a_connector_whose_task_does_not_run_does_not_run(state: str) -> None:
    assert not replace(RUNS, tasks=(state,)).is_running
    assert not replace(RUNS, connector=state).is_running


def test_a_failure_is_named_by_its_first_line_and_its_root_cause_without_secrets_or_rows() -> None:
    settings = Settings(_env_file=None, cdc_password=SecretStr("hunter2-secret"))
    trace = (
        "org.apache.kafka.connect.errors.ConnectException: task failed with hunter2-secret\n"
        "\tat io.debezium.X.y(X.java:1)\n"
        "Caused by: org.postgresql.util.PSQLException: FATAL: password authentication failed\n"
        "\tat org.postgresql.Z(Z.java:1)\n"
        'Caused by: java.lang.NumberFormatException: For input string: "a row value"\n'
    )
    failure = failure_of(settings, trace)
    assert failure.startswith("org.apache.kafka.connect.errors.ConnectException: task failed with ***")
    assert "FATAL: password authentication failed" in failure
    assert "hunter2" not in failure
    assert "row value" not in failure
    assert "\n" not in failure


def test_a_position_that_the_log_has_no_more_is_told_in_our_words_for_debezium_quotes_keys() -> None:
    trace = (
        "io.debezium.DebeziumException: The connector is trying to read change stream starting at PostgresOffset "
        "[lastEventKeySent=[a key]], but this is no longer available on the server. Reconfigure the connector\n"
        "\tat io.debezium.X.y(X.java:1)\n"
    )
    assert failure_of(Settings(_env_file=None), trace) == POSITION_GONE


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ('java.lang.NumberFormatException: For input string: "a row value"', "java.lang.NumberFormatException"),
        ("io.debezium.DebeziumException: a row value", "io.debezium.DebeziumException"),
        ("java.lang.NullPointerException", "java.lang.NullPointerException"),
        ('"a row value" and no class', "an error without a class"),
    ],
)
def test_of_an_exception_that_may_quote_a_row_only_the_class_is_told(first: str, told: str) -> None:
    trace = f"{first}\n\tat io.debezium.X.y(X.java:1)\nCaused by: org.postgresql.util.PSQLException: FATAL: no\n"
    assert (
        failure_of(Settings(_env_file=None), trace) == f"{told} Caused by: org.postgresql.util.PSQLException: FATAL: no"
    )
