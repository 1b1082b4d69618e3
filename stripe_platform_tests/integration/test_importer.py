"""The importer on a real PostgreSQL, in databases of its own on the shared server."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from stripe_platform.errors import StripePlatformError
from stripe_platform.local.environment import environment
from stripe_platform.local.errors import NotEnoughDisk
from stripe_platform.oltp import ledger, payments_file
from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.fees import charge_fee
from stripe_platform.oltp.import_plan import Fault
from stripe_platform.oltp.importer import BadRows, FileChanged, ImportReport, ImportStopped, import_payments
from stripe_platform.oltp.migrate import migrate
from stripe_platform.oltp.payments_file import COLUMNS, PaymentsFileError
from stripe_platform.oltp.sample import write_sample
from stripe_platform.settings import PROJECT_ROOT, Settings
from stripe_platform_tests.integration.test_ledger import COUNTS
from stripe_platform_tests.integration.test_row_bounds import migrate_to_before

HANDBOOK = PROJECT_ROOT.parent / "shared" / "data" / "handbook_payments_20k.parquet"
WRITTEN = (
    "merchants",
    "customers",
    "card_fingerprints",
    "payment_methods",
    "charges",
    "balance_transactions",
    "disputes",
    "dispute_balance_transactions",
    "imported_payments",
    "imported_parties",
)
FIRST = "r1,2018-04-01T10:00:00Z,c1,m1,1000,eur,"
SECOND = "r2,2018-04-01T10:00:00Z,c1,m2,500,jpy,2018-05-03T00:00:00Z"


@pytest.fixture
def database(new_database: Callable[[], Settings]) -> Settings:
    """A migrated database without payments."""
    settings = new_database()
    migrate(settings)
    return settings


def csv(tmp_path: Path, *rows: str, name: str = "payments.csv") -> Path:
    path = tmp_path / name
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    return path


def select(settings: Settings, query: str) -> list[tuple[object, ...]]:
    with connect(settings) as connection:
        return connection.execute(query.encode()).fetchall()


def contents(settings: Settings) -> dict[str, list[tuple[object, ...]]]:
    """Every version of every row that an import writes: an untouched row keeps its place and its xmin."""
    return {
        table: select(settings, f"SELECT tableoid, ctid::text, xmin::text FROM payments.{table} ORDER BY 1, 2")
        for table in WRITTEN
    }


def assert_empty(settings: Settings) -> None:
    assert {table: rows for table, rows in contents(settings).items() if rows} == {}


def assert_sound(settings: Settings) -> None:
    """What the asset checks ask for holds of everything imported."""
    with connect(settings) as connection:
        for table in ("charges", "balance_transactions"):
            assert ledger.rows_in_default_partition(connection, table) == 0
        assert [count.__name__ for count in COUNTS if count(connection)] == []


@pytest.mark.skipif(not HANDBOOK.is_file(), reason=f"{HANDBOOK} is not there")
def test_the_handbook_payments_are_imported_to_the_cent_and_importing_again_changes_nothing(
    database: Settings,
) -> None:
    file = pl.read_parquet(HANDBOOK)

    report = import_payments(database, HANDBOOK)

    totals = "SELECT count(*), sum(amount), sum(amount_captured), count(DISTINCT id) FROM payments.charges"
    amount = file["amount"].sum()
    assert select(database, totals) == [(20_000, amount, amount, 20_000)]
    assert (report.payments, report.imported, report.already_imported, report.rejected) == (20_000, 20_000, 0, 0)
    assert report.disputes == file["fraud_reported_at"].count()
    assert report.merchants == file["merchant_ref"].n_unique()
    assert report.customers == file["customer_ref"].n_unique()
    fees = sum(map(charge_fee, file["amount"]))
    by_type = "SELECT type, count(*), sum(amount), sum(fee), sum(net) FROM payments.balance_transactions GROUP BY 1"
    disputed = file.filter(pl.col("fraud_reported_at").is_not_null())
    assert sorted(select(database, by_type)) == [
        (
            "adjustment",
            disputed.height,
            -disputed["amount"].sum(),
            1500 * disputed.height,
            -disputed["amount"].sum() - 1500 * disputed.height,
        ),
        ("charge", 20_000, amount, fees, amount - fees),
    ]
    assert_sound(database)

    before = contents(database)
    again = import_payments(database, HANDBOOK)
    assert (again.imported, again.already_imported, again.merchants) == (0, 20_000, 0)
    assert contents(database) == before


@pytest.mark.skipif(not HANDBOOK.is_file(), reason=f"{HANDBOOK} is not there")
def test_keys_follow_the_order_of_the_file_even_within_one_second(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments_file, "BATCH_ROWS", 700)

    import_payments(database, HANDBOOK)

    in_order = (
        "SELECT imported.payment_ref FROM payments.imported_payments AS imported "
        "INNER JOIN payments.charges AS charge "
        "ON charge.id = imported.charge_id AND charge.created = imported.charge_created ORDER BY charge.id"
    )
    assert [ref for (ref,) in select(database, in_order)] == [str(number) for number in range(20_000)]


def test_a_payment_becomes_a_charge_a_movement_and_if_reported_a_dispute(database: Settings, tmp_path: Path) -> None:
    report = import_payments(database, csv(tmp_path, FIRST, SECOND))

    assert (report.imported, report.disputes, report.merchants, report.customers) == (2, 1, 2, 1)
    charges = (
        "SELECT amount, amount_captured, amount_refunded, currency, status, captured, paid, refunded, "
        "disputed, created FROM payments.charges ORDER BY id"
    )
    time = datetime(2018, 4, 1, 10, tzinfo=UTC)
    reported = datetime(2018, 5, 3, tzinfo=UTC)
    assert select(database, charges) == [
        (1000, 1000, 0, "eur", "succeeded", True, True, False, False, time),
        (500, 500, 0, "jpy", "succeeded", True, True, False, True, time),
    ]
    movements = (
        "SELECT amount, fee, net, currency, type, reporting_category, source_type, status, created, available_on "
        "FROM payments.balance_transactions ORDER BY id"
    )
    in_two_days = datetime(2018, 4, 3, 10, tzinfo=UTC)
    assert select(database, movements) == [
        (1000, 59, 941, "eur", "charge", "charge", "charge", "available", time, in_two_days),
        (500, 45, 455, "jpy", "charge", "charge", "charge", "available", time, in_two_days),
        (-500, 1500, -2000, "jpy", "adjustment", "dispute", "dispute", "available", reported, reported),
    ]
    disputes = "SELECT amount, currency, status, reason, created, charge_created FROM payments.disputes"
    assert select(database, disputes) == [(500, "jpy", "needs_response", "fraudulent", reported, time)]
    withdrawn = (
        "SELECT link.kind, movement.amount, link.created FROM payments.dispute_balance_transactions AS link "
        "INNER JOIN payments.balance_transactions AS movement ON movement.id = link.balance_transaction_id "
        "AND movement.created = link.balance_transaction_created AND movement.source_id = link.dispute_id"
    )
    assert select(database, withdrawn) == [("withdrawn", -500, reported)]
    parties = (
        "SELECT customer.merchant_id, customer.created, card.created, method.created, merchant.default_currency "
        "FROM payments.charges AS charge "
        "INNER JOIN payments.customers AS customer ON customer.id = charge.customer_id "
        "INNER JOIN payments.payment_methods AS method ON method.id = charge.payment_method_id "
        "AND method.customer_id = customer.id "
        "INNER JOIN payments.card_fingerprints AS card ON card.fingerprint = method.card_fingerprint "
        "INNER JOIN payments.merchants AS merchant ON merchant.id = charge.merchant_id ORDER BY charge.id"
    )
    assert select(database, parties) == [(None, time, time, time, "eur"), (None, time, time, time, "jpy")]
    assert_sound(database)


def test_a_dispute_that_was_imported_without_its_withdrawal_has_it_after_the_migration(
    new_database: Callable[[], Settings], tmp_path: Path
) -> None:
    settings = new_database()
    (tmp_path / "migrations").mkdir()
    migrate_to_before("0016", settings, tmp_path / "migrations")
    import_payments(settings, csv(tmp_path, FIRST, SECOND))
    links = "SELECT to_jsonb(link) - 'updated' FROM payments.dispute_balance_transactions AS link"
    linked = select(settings, links)
    with connect(settings) as connection:
        assert connection.execute("DELETE FROM payments.dispute_balance_transactions").rowcount == 1

    migrate(settings)

    assert select(settings, links) == linked


def test_a_later_file_adds_to_the_same_parties(database: Settings, tmp_path: Path) -> None:
    import_payments(database, csv(tmp_path, FIRST))
    report = import_payments(database, csv(tmp_path, FIRST, "r3,2018-06-01T10:00:00Z,c1,m1,7,eur,", name="later.csv"))

    assert (report.imported, report.already_imported, report.merchants, report.customers) == (1, 1, 0, 0)
    assert select(database, "SELECT count(DISTINCT customer_id), count(*) FROM payments.charges") == [(1, 2)]


def test_bad_rows_stop_the_import_before_anything_is_written_and_show_no_value(
    database: Settings, tmp_path: Path
) -> None:
    path = csv(tmp_path, FIRST, "r2,2018-04-01T10:00:00Z,c1,m2,-77123,eur,", "r3,,c1,m2,1,zzz,")

    with pytest.raises(BadRows) as stopped:
        import_payments(database, path)

    assert stopped.value.faults == (
        Fault(2, "amount is negative"),
        Fault(3, "occurred_at is missing or not a timestamp"),
    )
    assert "77123" not in str(stopped.value)
    assert_empty(database)
    assert not path.with_name("payments.csv.rejects.csv").exists()


def test_of_many_bad_rows_the_first_20_are_told_and_all_are_counted(database: Settings, tmp_path: Path) -> None:
    with pytest.raises(BadRows, match="30 bad rows, nothing was imported") as stopped:
        import_payments(database, csv(tmp_path, *[f"r{n},2018-04-01T10:00:00Z,c1,m1,-1,eur," for n in range(30)]))

    assert [fault.row for fault in stopped.value.faults] == list(range(1, 21))
    assert "… and 10 more" in str(stopped.value)


def test_bad_rows_can_be_left_in_a_file_of_rejects(database: Settings, tmp_path: Path) -> None:
    bad = "r2,2018-04-01T10:00:00Z,c1,m2,many,eur,"
    report = import_payments(database, csv(tmp_path, FIRST, bad, SECOND.replace("r2", "r3")), skip_bad=True)

    assert (report.payments, report.imported, report.rejected) == (3, 2, 1)
    assert report.rejects_path == tmp_path / "payments.csv.rejects.csv"
    assert report.rejects_path.read_text().splitlines() == [
        f"row,reason,{','.join(COLUMNS)}",
        f"2,amount is missing or not a whole number,{bad}",
    ]
    assert_sound(database)


def test_one_reference_with_two_contents_in_a_file_is_a_bad_row(database: Settings, tmp_path: Path) -> None:
    path = csv(tmp_path, FIRST, FIRST.replace("1000", "1001"), FIRST)

    with pytest.raises(BadRows) as stopped:
        import_payments(database, path)
    assert stopped.value.faults == (Fault(2, "payment_ref stands in an earlier row with other content"),)
    assert_empty(database)

    report = import_payments(database, path, skip_bad=True)
    assert (report.imported, report.already_imported, report.rejected) == (1, 1, 1)
    assert select(database, "SELECT amount FROM payments.charges") == [(1000,)]


def test_a_reference_imported_before_with_other_content_is_a_bad_row(database: Settings, tmp_path: Path) -> None:
    import_payments(database, csv(tmp_path, FIRST))
    before = contents(database)
    path = csv(tmp_path, SECOND, FIRST.replace("m1", "m9"), name="other.csv")

    with pytest.raises(BadRows) as stopped:
        import_payments(database, path)
    assert stopped.value.faults == (Fault(2, "payment_ref was imported before with other content"),)
    assert contents(database) == before

    report = import_payments(database, path, skip_bad=True)
    assert (report.imported, report.rejected) == (1, 1)
    assert select(database, "SELECT count(*) FROM payments.imported_parties WHERE ref = 'm9'") == [(0,)]


def test_an_amount_of_nothing_is_a_charge_without_a_fee(database: Settings, tmp_path: Path) -> None:
    import_payments(database, csv(tmp_path, FIRST.replace("1000", "0")))

    assert select(database, "SELECT amount, refunded FROM payments.charges") == [(0, False)]
    assert select(database, "SELECT amount, fee, net FROM payments.balance_transactions") == [(0, 0, 0)]


def test_an_empty_file_imports_nothing(database: Settings, tmp_path: Path) -> None:
    report = import_payments(database, csv(tmp_path))

    assert (report.payments, report.imported) == (0, 0)
    assert_empty(database)


def test_the_file_that_the_project_makes_is_imported_whole(database: Settings, tmp_path: Path) -> None:
    write_sample(tmp_path / "sample.parquet")
    steps: list[tuple[int, int]] = []

    report = import_payments(
        database, tmp_path / "sample.parquet", progress=lambda done, total: steps.append((done, total))
    )

    assert report.imported == 2000
    assert (steps[0], steps[-1]) == ((0, 2000), (2000, 2000))
    assert_sound(database)


def test_a_missing_file_is_named(database: Settings, tmp_path: Path) -> None:
    with pytest.raises(PaymentsFileError, match=r"nowhere\.csv: does not exist"):
        import_payments(database, tmp_path / "nowhere.csv")


def test_what_postgresql_refuses_is_told_without_values_and_leaves_no_part_of_a_payment(
    database: Settings, tmp_path: Path
) -> None:
    with connect(database) as connection:
        connection.execute("ALTER TABLE payments.disputes ADD CONSTRAINT no_disputes CHECK (amount = 0)")

    with pytest.raises(ImportStopped, match=r"no_disputes.*import the file again") as stopped:
        import_payments(database, csv(tmp_path, FIRST, SECOND))
    assert "500" not in str(stopped.value)
    assert_empty(database)


def test_a_file_that_changes_meanwhile_stops_the_import_and_the_next_import_goes_on_from_there(
    database: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments_file, "BATCH_ROWS", 100)
    path, longer = tmp_path / "sample.parquet", tmp_path / "longer.parquet"
    write_sample(path)
    file = pl.read_parquet(path)
    pl.concat([file, file.head(1).with_columns(payment_ref=pl.lit("one more"))]).write_parquet(longer)

    def replace(done: int, total: int) -> None:
        if done >= 500 and longer.exists():
            longer.replace(path)

    with pytest.raises(FileChanged, match=r"sample\.parquet changed .* 500 of its rows .* import it again"):
        import_payments(database, path, progress=replace)
    assert select(database, "SELECT count(*) FROM payments.charges") == [(500,)]
    report = import_payments(database, path)
    assert (report.imported, report.already_imported) == (1501, 500)
    assert_sound(database)


def test_a_disk_that_fills_up_stops_the_import_between_two_batches_and_the_next_import_goes_on_from_there(
    database: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments_file, "BATCH_ROWS", 500)
    path = tmp_path / "sample.parquet"
    write_sample(path)
    free = iter([database.least_free_bytes, database.least_free_bytes, 0])
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, next(free)))
        with pytest.raises(NotEnoughDisk, match="LEAST_FREE_BYTES"):
            import_payments(database.model_copy(update={"stripe_platform_home": tmp_path}), path)
    assert select(database, "SELECT count(*) FROM payments.charges") == [(1000,)]
    assert import_payments(database, path).already_imported == 1000
    assert_sound(database)


def test_two_imports_at_once_are_refused(database: Settings, tmp_path: Path) -> None:
    path = csv(tmp_path, FIRST)
    refusals: list[str] = []

    def import_beside(done: int, total: int) -> None:
        with pytest.raises(StripePlatformError) as refused:
            import_payments(database, path)
        refusals.append(str(refused.value))

    import_payments(database, path, progress=import_beside)

    assert all("another import is running" in refusal for refusal in refusals)
    assert len(refusals) == 2


def test_a_rejects_file_that_cannot_be_written_stops_the_import_before_anything_is(
    database: Settings, tmp_path: Path
) -> None:
    path = csv(tmp_path, FIRST, "r2,2018-04-01T10:00:00Z,c1,m2,many,eur,")
    path.with_name("payments.csv.rejects.csv").mkdir()

    with pytest.raises(StripePlatformError, match=r"rejects file .* cannot be written .* nothing was imported"):
        import_payments(database, path, skip_bad=True)
    assert_empty(database)


def test_without_migrations_the_remedy_is_named(new_database: Callable[[], Settings], tmp_path: Path) -> None:
    with pytest.raises(StripePlatformError, match="run the migrations"):
        import_payments(new_database(), csv(tmp_path, FIRST))


KILLED = """
import os, signal, sys
from pathlib import Path
from stripe_platform.oltp import payments_file
from stripe_platform.oltp.importer import import_payments
from stripe_platform.settings import load_settings
payments_file.BATCH_ROWS = 100
def kill(done, total):
    if done >= 500:
        os.kill(os.getpid(), signal.SIGKILL)
import_payments(load_settings(), Path(sys.argv[1]), progress=kill)
"""


def test_an_import_killed_in_the_middle_goes_on_where_it_stopped_and_nothing_is_doubled(
    database: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "sample.parquet"
    write_sample(path)

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)],
        env=environment(database),
        cwd=PROJECT_ROOT,
        timeout=120,
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -9, killed.stderr
    ((before,),) = select(database, "SELECT count(*) FROM payments.charges")
    assert before == 500

    report = import_after_the_server_has_noticed(database, path)
    assert (report.imported, report.already_imported) == (1500, 500)
    amount = pl.read_parquet(path)["amount"].sum()
    assert select(database, "SELECT count(*), sum(amount) FROM payments.charges") == [(2000, amount)]
    assert_sound(database)


def import_after_the_server_has_noticed(settings: Settings, path: Path) -> ImportReport:
    deadline = time.monotonic() + 30
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = " + (
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    while select(settings, locks) != [(0,)]:
        assert time.monotonic() < deadline, "the killed import still holds its lock"
        time.sleep(0.05)
    return import_payments(settings, path)
