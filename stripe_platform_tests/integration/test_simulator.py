"""The simulator on a real PostgreSQL: histories that go on where they stopped, and live payments that survive."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from stripe_platform.local.environment import environment
from stripe_platform.oltp import ledger
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.importer import import_payments
from stripe_platform.oltp.migrate import migrate
from stripe_platform.oltp.sample import write_sample
from stripe_platform.oltp.simulator import population
from stripe_platform.oltp.simulator.history import NoSuchHistory, has_history, simulate_history
from stripe_platform.oltp.simulator.live import NoSuchRate, run_live
from stripe_platform.oltp.simulator.live_payments import Transaction
from stripe_platform.oltp.simulator.live_worker import LiveStopped
from stripe_platform.oltp.simulator.roster import NobodyToPay
from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.settings import PROJECT_ROOT, Settings
from stripe_platform_tests.integration.test_ledger import COUNTS
from stripe_platform_tests.integration.test_oltp import insert

UNTIL = date(2026, 11, 1)
PAYMENTS, DAYS = 1_200, 75
PER_BATCH = 250
REFERENCE = {"currencies", "countries", "exchange_rates"}
WRITTEN = [table.name for table in CAPTURED_TABLES if table.name not in REFERENCE]
SIMULATE = """
import sys
from datetime import date
from stripe_platform.oltp.simulator import population
from stripe_platform.oltp.simulator.history import simulate_history
from stripe_platform.settings import load_settings

population.PAYMENTS_PER_BATCH, *arguments = map(int, sys.argv[1:])
simulate_history(load_settings(), *arguments, until=date(2026, 11, 1))
"""
PAYOUTS_THAT_DO_NOT_ADD_UP = """
SELECT count(*) FROM payments.payouts AS payout
LEFT JOIN (SELECT payout_id, sum(net) AS net FROM payments.balance_transactions GROUP BY payout_id) AS paid
    ON paid.payout_id = payout.id
WHERE payout.amount IS DISTINCT FROM paid.net
"""
INTENTS_THAT_DO_NOT_ADD_UP = """
SELECT count(*) FROM payments.payment_intents AS intent
LEFT JOIN (SELECT payment_intent_id, sum(amount_captured) AS amount FROM payments.charges GROUP BY 1) AS captured
    ON captured.payment_intent_id = intent.id
WHERE intent.amount_received <> coalesce(captured.amount, 0)
"""


@pytest.fixture
def database(new_database: Callable[[], Settings]) -> Settings:
    """A migrated database without payments."""
    settings = new_database()
    migrate(settings)
    return settings


@pytest.fixture(scope="module")
def company(new_database: Callable[[], Settings]) -> Settings:
    """A database with a company's history until today."""
    settings = new_database()
    migrate(settings)
    simulate_history(settings, 600, 60, seed=3)
    return settings


def scalar(settings: Settings, query: str, *values: object) -> int:
    with connect(settings) as connection:
        ((value,),) = connection.execute(query.encode(), values).fetchall()
    return int(value)


def contents(settings: Settings) -> dict[str, list[tuple[object, ...]]]:
    """All rows by table, without the moment at which they were written."""
    rows = {}
    with connect(settings) as connection:
        for table in WRITTEN:
            query = f"SELECT (to_jsonb(row) - 'updated')::text FROM payments.{table} AS row ORDER BY 1"
            rows[table] = connection.execute(query.encode()).fetchall()
    return rows


def versions(settings: Settings) -> dict[str, list[tuple[object, ...]]]:
    """Every version of every row: an untouched row keeps its place and its xmin."""
    with connect(settings) as connection:
        return {
            table: connection.execute(
                f"SELECT tableoid, ctid::text, xmin::text FROM payments.{table} ORDER BY 1, 2".encode()
            ).fetchall()
            for table in [*WRITTEN, "simulations"]
        }


def assert_sound(settings: Settings) -> None:
    with connect(settings) as connection:
        for table in CAPTURED_TABLES:
            if table.monthly:
                assert ledger.rows_in_default_partition(connection, table.name) == 0, table.name
        # Whatever the ledger's checks count, it must be none.
        assert [count.__name__ for count in COUNTS if count(connection)] == []
    for query in (PAYOUTS_THAT_DO_NOT_ADD_UP, INTENTS_THAT_DO_NOT_ADD_UP):
        assert scalar(settings, query) == 0, query


def test_a_history_is_whole_and_simulating_it_again_adds_nothing(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(population, "PAYMENTS_PER_BATCH", PER_BATCH)
    steps: list[tuple[int, int]] = []

    report = simulate_history(
        database, PAYMENTS, DAYS, 1, until=UNTIL, progress=lambda done, total: steps.append((done, total))
    )

    assert report.payments == PAYMENTS == scalar(database, "SELECT count(*) FROM payments.payment_intents")
    assert report.batches_written == report.batches >= 4
    assert steps[0] == (0, PAYMENTS)
    assert steps[-1] == (PAYMENTS, PAYMENTS)
    assert {table: scalar(database, f"SELECT count(*) FROM payments.{table}") for table in report.rows} == report.rows
    assert set(report.rows) == set(WRITTEN)
    assert_sound(database)
    # The triggers on refunds and disputes had nothing to change.
    assert scalar(database, "SELECT count(*) FROM payments.charges WHERE xmax::text <> '0' AND updated > now()") == 0

    before = versions(database)
    again = simulate_history(database, PAYMENTS, DAYS, 1, until=UNTIL)
    later = simulate_history(database, PAYMENTS, DAYS, 1)
    assert (again.payments, again.batches_written, later.payments) == (0, 0, 0)
    assert later.run.until == UNTIL
    assert versions(database) == before


FIRST = (50, 10, 1)


def imported_payments(settings: Settings, folder: Path) -> None:
    write_sample(folder / "sample.parquet", payments=20, until=datetime(2026, 11, 1, tzinfo=UTC))
    import_payments(settings, folder / "sample.parquet")


def a_live_payment(settings: Settings, folder: Path) -> None:
    with connect(settings) as connection:
        shop = {"business_name": "Birch Books", "mcc": "5942", "country": "DE", "default_currency": "eur"}
        insert(connection, "merchants", id=(merchant := uuid.uuid4()), **shop)
        intent = {"amount": 100, "currency": "eur", "status": "requires_payment_method"}
        insert(connection, "payment_intents", merchant_id=merchant, **intent)


def another_history(settings: Settings, folder: Path) -> None:
    simulate_history(settings, 20, 5, seed=2, until=UNTIL)


@pytest.mark.parametrize("write", [imported_payments, a_live_payment, another_history])
def test_payments_of_any_origin_keep_a_first_history_from_being_simulated(
    database: Settings, tmp_path: Path, write: Callable[[Settings, Path], None]
) -> None:
    assert not has_history(database, but=FIRST)

    write(database, tmp_path)

    assert has_history(database, but=FIRST)


def test_a_first_history_that_was_begun_is_gone_on_with_whatever_came_after_it(
    database: Settings, tmp_path: Path
) -> None:
    simulate_history(database, *FIRST, until=UNTIL)
    imported_payments(database, tmp_path)
    a_live_payment(database, tmp_path)

    assert not has_history(database, but=FIRST)


def test_a_history_that_was_killed_goes_on_to_the_same_rows(
    new_database: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = new_database(), new_database()
    for settings in (whole, killed):
        migrate(settings)
    monkeypatch.setattr(population, "PAYMENTS_PER_BATCH", PER_BATCH)
    simulate_history(whole, PAYMENTS, DAYS, 5, until=UNTIL)
    process = _simulating(killed, seed=5)
    try:
        _until_written(killed, process, batches=2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
    done = scalar(killed, "SELECT batches_done FROM payments.simulations")
    assert 2 <= done < scalar(killed, "SELECT batches FROM payments.simulations")
    _until_its_connections_have_ended(killed)
    assert_sound(killed)

    report = simulate_history(killed, PAYMENTS, DAYS, 5, until=UNTIL)

    assert 0 < report.payments < PAYMENTS
    assert contents(killed) == contents(whole)


def _simulating(settings: Settings, seed: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            SIMULATE,
            str(PER_BATCH),
            str(PAYMENTS),
            str(DAYS),
            str(seed),
        ],
        cwd=PROJECT_ROOT,
        env={**os.environ, **environment(settings), "POSTGRES_DATABASE": settings.postgres_database},
        start_new_session=True,
    )


@retry(retry=retry_if_exception_type(AssertionError), stop=stop_after_delay(60), wait=wait_fixed(0.005), reraise=True)
def _until_written(settings: Settings, process: subprocess.Popen[bytes], batches: int) -> None:
    written = scalar(settings, "SELECT coalesce(max(batches_done), 0) FROM payments.simulations")
    if process.poll() is not None:
        raise RuntimeError("the simulation ended before it could be killed")
    assert written >= batches


@retry(retry=retry_if_exception_type(AssertionError), stop=stop_after_delay(30), wait=wait_fixed(0.05), reraise=True)
def _until_its_connections_have_ended(settings: Settings) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert scalar(settings, query) == 0


@pytest.mark.parametrize(("payments", "days", "seed"), [(0, 90, 1), (10, 0, 1), (10, 90, -1), (10, 100_000, 1)])
def test_arguments_that_make_no_history_are_refused(database: Settings, payments: int, days: int, seed: int) -> None:
    with pytest.raises(NoSuchHistory, match="change the arguments"):
        simulate_history(database, payments, days, seed)
    assert scalar(database, "SELECT count(*) FROM payments.simulations") == 0


def test_live_payments_are_committed_at_their_rate_and_are_sound(company: Settings) -> None:
    before = scalar(company, "SELECT count(*) FROM payments.payment_intents WHERE idempotency_key LIKE 'live_%%'")

    report = run_live(company, rate=50, duration=timedelta(seconds=4), seed=1)

    made = (
        scalar(company, "SELECT count(*) FROM payments.payment_intents WHERE idempotency_key LIKE 'live_%%'") - before
    )
    assert made == report.payments == 200
    assert report.unresolved == 0
    assert report.committed["charge"] >= 190
    assert sum(report.committed.values()) > report.committed["charge"] + report.payments
    assert report.seconds >= 3.9
    assert_sound(company)


def test_live_payments_go_on_after_their_connections_were_cut_and_each_is_committed_once(company: Settings) -> None:
    before = _counts(company)
    cut = threading.Thread(target=_cut_again_and_again, args=[company])
    cut.start()
    report = run_live(company, rate=60, duration=timedelta(seconds=6), seed=2)
    cut.join()

    after = _counts(company)
    assert report.reconnected >= 4
    assert report.retried >= 4
    renewed = report.committed.get("renewal", 0)
    assert report.payments == 360
    assert after["intents"] - before["intents"] == report.committed["payment_intent"] + renewed
    assert after["charges"] - before["charges"] == report.committed["charge"] + renewed
    assert after["refunds"] - before["refunds"] == report.committed.get("refund", 0)
    assert after["payouts"] - before["payouts"] == report.committed.get("payout", 0)
    assert_sound(company)


def test_a_transaction_whose_answer_is_lost_after_its_commit_is_found_by_its_key_and_not_done_again(
    company: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, answers = Transaction.write, itertools.count(1)
    lost: list[str] = []

    def answer_lost(transaction: Transaction, connection: psycopg.Connection) -> None:
        write(transaction, connection)
        if next(answers) % 7 == 0:
            lost.append(transaction.kind)
            connection.close()
            raise psycopg.OperationalError("the answer is lost")

    monkeypatch.setattr(Transaction, "write", answer_lost)
    before = _counts(company)

    report = run_live(company, rate=40, duration=timedelta(seconds=3), seed=6)

    after = _counts(company)
    renewed = report.committed.get("renewal", 0)
    assert report.resolved == len(lost) > 20
    assert set(lost) == {"payment_intent", "charge"}
    assert report.payments == 120 == after["intents"] - before["intents"] - renewed
    assert report.committed["charge"] == after["charges"] - before["charges"] - renewed
    assert_sound(company)


def _counts(settings: Settings) -> dict[str, int]:
    tables = {"intents": "payment_intents", "charges": "charges", "refunds": "refunds", "payouts": "payouts"}
    return {name: scalar(settings, f"SELECT count(*) FROM payments.{table}") for name, table in tables.items()}


def _cut_again_and_again(settings: Settings) -> None:
    """End each connection of the live run once, until eight have been."""
    cut = (
        "SELECT application_name, pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name LIKE 'live-%%' AND datname = current_database() AND NOT application_name = ANY(%s)"
    )
    ended: list[str] = []
    with connect(settings, autocommit=True) as connection:
        deadline = time.monotonic() + 30
        while len(ended) < 8 and time.monotonic() < deadline:
            ended += [name for name, _ in connection.execute(cut.encode(), [ended])]


@pytest.mark.parametrize(("rate", "seconds"), [(0, 5), (-1, 5), (5, 0)])
def test_a_live_run_without_rate_or_duration_is_refused(company: Settings, rate: float, seconds: float) -> None:
    with pytest.raises(NoSuchRate, match="change the arguments"):
        run_live(company, rate=rate, duration=timedelta(seconds=seconds), seed=1)


def test_a_live_run_ends_when_it_is_told_to(company: Settings) -> None:
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()

    report = run_live(company, rate=20, duration=timedelta(minutes=10), seed=4, stop=stop)

    assert report.seconds < 15
    assert 0 < report.payments < 200
    _until_its_connections_have_ended(company)


def test_a_live_run_pays_with_imported_payers_too(database: Settings, tmp_path: Path) -> None:
    with pytest.raises(NobodyToPay, match="simulate --payments"):
        run_live(database, rate=10, duration=timedelta(seconds=1), seed=1)
    until = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    write_sample(tmp_path / "sample.parquet", payments=300, until=until)
    import_payments(database, tmp_path / "sample.parquet")

    report = run_live(database, rate=40, duration=timedelta(seconds=2), seed=1)

    assert report.payments == 80
    assert scalar(database, "SELECT count(*) FROM payments.payment_intents") == 80
    assert_sound(database)


def test_a_live_run_that_postgresql_refuses_says_so_and_shows_no_row(database: Settings) -> None:
    simulate_history(database, 50, 10, seed=1, until=UNTIL)
    with connect(database) as connection:
        connection.execute("ALTER TABLE payments.payment_intents ADD CONSTRAINT no_more CHECK (amount < 0) NOT VALID")
    with pytest.raises(LiveStopped, match=r"payment_intent: .*no_more") as refused:
        run_live(database, rate=10, duration=timedelta(seconds=2), seed=1)
    assert "Failing row" not in str(refused.value)
