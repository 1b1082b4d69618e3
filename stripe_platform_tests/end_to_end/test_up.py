"""What a newcomer sees: `up`, the table at its end, a row of their own in the marts, and `down`."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from stripe_platform.bring_up import FIRST_PAYMENTS
from stripe_platform.cdc.offsets import last_stable_offsets
from stripe_platform.features.connection import connect as connect_documents
from stripe_platform.local.environment import environment
from stripe_platform.local.stack import server_states
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.tables import TABLES_BY_NAME
from stripe_platform.settings import PROJECT_ROOT, Settings
from stripe_platform.status import urls
from stripe_platform.warehouse.query import query_rows
from stripe_platform_tests.end_to_end.same_sums import SameSums
from stripe_platform_tests.end_to_end.sums_of_postgres import SAME_SUMS


@pytest.fixture(scope="module")
def stack_up(new_settings: Callable[[], Settings], command_line: Any) -> Iterator[Any]:
    line = command_line(new_settings())
    line.printed = line("up")
    yield line
    line("down")
    assert {server.state for server in server_states(line.settings)} == {"STOPPED"}


def _runs(settings: Settings) -> list[tuple[str, str]]:
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        return [(record.dagster_run.job_name, record.dagster_run.run_id) for record in instance.get_run_records()]


def test_up_ends_with_the_rows_the_revenue_and_the_addresses(stack_up: Any) -> None:
    printed = stack_up.printed
    (charges,) = [line.split() for line in printed.splitlines() if line.strip().startswith("charges")]
    _, rows, _, _, raw, staging, lag, *_ = charges
    assert int(rows.replace(",", "")) > FIRST_PAYMENTS
    assert [raw, staging, lag] == [rows, rows, "0"]
    assert "Revenue" in printed
    for address in urls(stack_up.settings).values():
        assert address in printed


def test_status_gives_scripts_the_same_rows_in_every_stage(stack_up: Any) -> None:
    status = json.loads(stack_up("status", "--json"))
    assert set(status["servers"].values()) == {"RUNNING"}
    stages = {stage["table"]: stage for stage in status["stages"]}
    assert set(stages) == set(TABLES_BY_NAME)
    assert stages["payment_intents"]["oltp_rows"] == FIRST_PAYMENTS
    for stage in stages.values():
        assert stage["oltp_rows"] == stage["raw_rows"] == stage["staging_rows"], stage["table"]
        assert stage["lag_messages"] == 0
    assert sum(row["gross"] for row in status["revenue"]) > 0


@pytest.mark.parametrize("same", SAME_SUMS, ids=lambda same: same.what)
def test_the_marts_hold_the_sums_of_postgres(stack_up: Any, same: SameSums) -> None:
    # The settings were made before `up` made the secrets.
    known = stack_up.settings.model_dump(exclude_unset=True)
    with connect(Settings(_secrets_dir=stack_up.settings.home / "secrets", **known)) as postgres:
        expected = Counter(postgres.execute(same.oltp.encode()).fetchall())
    found = Counter(query_rows(stack_up.settings, same.mart))
    assert expected
    assert (found - expected, expected - found) == (Counter(), Counter())


def test_a_second_up_changes_nothing(stack_up: Any) -> None:
    def state() -> tuple[Any, ...]:
        settings = stack_up.settings
        servers = [(server.name, server.pid) for server in server_states(settings)]
        return servers, last_stable_offsets(settings, TABLES_BY_NAME), _runs(settings)

    before = state()
    stack_up("up")
    assert state() == before


def test_a_row_inserted_by_hand_becomes_a_document_and_reaches_the_mart_by_the_sensors_alone(stack_up: Any) -> None:
    stack_up(
        "psql",
        "INSERT INTO charges (merchant_id, amount, amount_captured, currency, status, captured, paid) "
        "SELECT id, 4242424242, 4242424242, 'eur', 'succeeded', true, true FROM merchants LIMIT 1",
    )
    _until_a_document(stack_up.settings)
    _until_in_mart(stack_up)


@retry(retry=retry_if_exception_type(AssertionError), stop=stop_after_delay(60), wait=wait_fixed(0.1), reraise=True)
def _until_a_document(settings: Settings) -> None:
    with connect_documents(settings) as documents:
        charge = documents["charges"].find_one({"amount": 4242424242})
    assert charge is not None
    assert (charge["reporting_amount"], charge["status"]) == (4242424242, "succeeded")


@retry(retry=retry_if_exception_type(AssertionError), stop=stop_after_delay(240), wait=wait_fixed(2), reraise=True)
def _until_in_mart(line: Any) -> None:
    found = line.rows("select count(*) as charges from marts.fact_charges where amount = 4242424242")
    assert found == [{"charges": "1"}]


def test_dagster_dev_beside_it_says_that_a_daemon_already_runs(
    stack_up: Any, new_settings: Callable[[], Settings], tmp_path: Path
) -> None:
    settings, elsewhere, output = stack_up.settings, new_settings().dagster_port, tmp_path / "output"
    with output.open("w") as file:
        dagster = subprocess.Popen(
            [
                *(sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml"),
                *("-h", "127.0.0.1", "-p", str(elsewhere)),
            ],
            cwd=PROJECT_ROOT,
            env={**os.environ, **environment(settings), "DAGSTER_HOME": str(settings.dagster_home)},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _until_it_says(output, f"already runs (http://127.0.0.1:{settings.dagster_port})")
    finally:
        # As from a keyboard: it stays up after a SIGTERM.
        dagster.send_signal(signal.SIGINT)
        try:
            dagster.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(dagster.pid, signal.SIGKILL)
            dagster.wait(timeout=30)


@retry(retry=retry_if_exception_type(AssertionError), stop=stop_after_delay(120), wait=wait_fixed(0.5), reraise=True)
def _until_it_says(output: Path, words: str) -> None:
    assert words in output.read_text()
