"""Every index serves a query: the planner takes it, of its own accord, for the query that the index is there for."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from stripe_platform.oltp.connection import connect
from stripe_platform.oltp.migrate import migrate
from stripe_platform.oltp.partitions import ensure_partitions
from stripe_platform.settings import Settings
from stripe_platform_tests.integration.test_oltp import Connection, NewDatabase, one

MONTHS = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)]
# `key(kind, n)` is the id of the nth row of its kind, `at(n)` its time.
FUNCTIONS = """
CREATE FUNCTION public.key(kind text, n integer) RETURNS uuid LANGUAGE sql IMMUTABLE RETURN md5(kind || n)::uuid;
CREATE FUNCTION public.at(n integer) RETURNS timestamptz LANGUAGE sql IMMUTABLE
RETURN '2026-01-01 00:00:00+00'::timestamptz + make_interval(secs => n * 120);
"""
# {table: (rows, columns, the values of the nth row)}, so many that a scan of all costs more than the index.
ROWS: dict[str, tuple[int, str, str]] = {
    "merchants": (
        200,
        "id, business_name, mcc, country, default_currency",
        "key('merchant', n), 'Birch Books', '5942', 'DE', 'eur'",
    ),
    "customers": (
        20_000,
        "id, merchant_id, metadata, created, deleted_at",
        "key('customer', n), key('merchant', n % 200), jsonb_build_object('reference', 'c' || n), at(n), "
        "CASE WHEN n % 10 = 0 THEN at(n) END",
    ),
    "addresses": (10_000, "customer_id, kind, country", "key('customer', n), 'billing', 'DE'"),
    "card_fingerprints": (5_000, "fingerprint, brand, funding", "md5('card' || n), 'visa', 'credit'"),
    "payment_methods": (
        10_000,
        "id, customer_id, card_fingerprint",
        "key('method', n), key('customer', n), md5('card' || n % 5000)",
    ),
    "products": (
        10_000,
        "id, merchant_id, name, active",
        "key('product', n), key('merchant', n % 200), 'Book', n % 4 > 0",
    ),
    "prices": (
        10_000,
        "id, product_id, unit_amount, currency, type, active",
        "key('price', n), key('product', n), 999, 'eur', 'one_time', n % 4 > 0",
    ),
    "subscriptions": (
        10_000,
        "id, merchant_id, customer_id, currency, status, start_date, canceled_at",
        "key('subscription', n), key('merchant', n % 200), key('customer', n), 'eur', "
        "CASE n % 4 WHEN 0 THEN 'active' ELSE 'canceled' END, at(n), at(n)",
    ),
    "subscription_items": (
        10_000,
        "subscription_id, price_id, current_period_start, current_period_end",
        "key('subscription', n), key('price', n), at(n), at(n + 21600)",
    ),
    "invoices": (
        20_000,
        "id, merchant_id, customer_id, subscription_id, number, status, billing_reason, currency, subtotal, total, "
        "amount_due, amount_paid, period_start, period_end, due_date, finalized_at, paid_at, created",
        "key('invoice', n), key('merchant', n % 200), key('customer', n % 10000), key('subscription', n % 10000), "
        "n::text, CASE WHEN n % 50 = 0 THEN 'open' ELSE 'paid' END, 'subscription_cycle', 'eur', 999, 999, 999, "
        "CASE WHEN n % 50 = 0 THEN 0 ELSE 999 END, at(n), at(n), at(n), at(n), "
        "CASE WHEN n % 50 > 0 THEN at(n) END, at(n)",
    ),
    "invoice_lines": (
        20_000,
        "invoice_id, amount, currency, period_start, period_end",
        "key('invoice', n), 999, 'eur', at(n), at(n)",
    ),
    "payment_intents": (
        20_000,
        "id, merchant_id, customer_id, invoice_id, amount, amount_received, currency, status, created",
        "key('intent', n), key('merchant', n % 200), key('customer', n % 10000), key('invoice', n), 999, "
        "CASE WHEN n % 50 = 0 THEN 0 ELSE 999 END, 'eur', "
        "CASE WHEN n % 50 = 0 THEN 'requires_action' ELSE 'succeeded' END, at(n)",
    ),
    "charges": (
        40_000,
        "id, merchant_id, customer_id, payment_method_id, payment_intent_id, amount, amount_captured, captured, paid, "
        "status, currency, metadata, created",
        "key('charge', n), key('merchant', n % 200), key('customer', n % 10000), key('method', n % 10000), "
        "key('intent', n % 20000), 999, 999, TRUE, TRUE, 'succeeded', 'eur', jsonb_build_object('order', 'o' || n), "
        "at(n)",
    ),
    "balance_transactions": (
        40_000,
        "id, merchant_id, amount, net, currency, type, reporting_category, status, available_on, source_type, "
        "source_id, payout_id, created",
        "key('movement', n), key('merchant', n % 200), 999, 999, 'eur', 'charge', 'charge', 'available', at(n), "
        "'charge', key('charge', n), CASE WHEN n < 36000 THEN key('payout', n % 10000) END, at(n)",
    ),
    "refunds": (
        10_000,
        "charge_id, charge_created, amount, currency, status",
        "key('charge', n), at(n), 99, 'eur', 'succeeded'",
    ),
    "disputes": (
        10_000,
        "charge_id, charge_created, amount, currency, status, reason",
        "key('charge', n), at(n), 99, 'eur', 'lost', 'fraudulent'",
    ),
    "reviews": (
        10_000,
        "charge_id, charge_created, open, opened_reason, closed_reason, closed_at, created",
        "key('charge', n), at(n), n % 50 = 0, 'rule', CASE WHEN n % 50 > 0 THEN 'approved' END, "
        "CASE WHEN n % 50 > 0 THEN at(n) END, at(n)",
    ),
    "early_fraud_warnings": (10_000, "charge_id, charge_created, fraud_type", "key('charge', n), at(n), 'misc'"),
    "payouts": (
        10_000,
        "id, merchant_id, amount, currency, status, arrival_date, created",
        "key('payout', n), key('merchant', n % 200), 999, 'eur', "
        "CASE WHEN n % 50 = 0 THEN 'in_transit' ELSE 'paid' END, at(n)::date, at(n)",
    ),
    "fee_details": (
        20_000,
        "balance_transaction_id, balance_transaction_created, amount, currency, type",
        "key('movement', n), at(n), 9, 'eur', 'stripe_fee'",
    ),
    "events": (
        40_000,
        "merchant_id, type, object_type, object_id, api_version, payload, created",
        "key('merchant', n % 200), 'charge.succeeded', 'charge', key('charge', n), '2026-01-01', "
        "jsonb_build_object('id', key('charge', n), 'amount', 999), at(n)",
    ),
}
OF_CHARGE = "WHERE charge_id = key('charge', 77) AND charge_created = at(77)"
QUERIES = {
    "addresses_by_customer": "SELECT * FROM payments.addresses WHERE customer_id = key('customer', 7)",
    "balance_transactions_by_merchant": (
        "SELECT * FROM payments.balance_transactions WHERE merchant_id = key('merchant', 7) "
        "ORDER BY created DESC LIMIT 20"
    ),
    "balance_transactions_by_payout": (
        "SELECT sum(net) FROM payments.balance_transactions WHERE payout_id = key('payout', 7)"
    ),
    "balance_transactions_by_source": (
        "SELECT * FROM payments.balance_transactions WHERE source_id = key('charge', 77)"
    ),
    "balance_transactions_to_pay_out": (
        "SELECT id, net FROM payments.balance_transactions WHERE merchant_id = key('merchant', 7) AND currency = 'eur' "
        "AND payout_id IS NULL AND available_on <= at(39000)"
    ),
    "charges_by_customer": (
        "SELECT * FROM payments.charges WHERE customer_id = key('customer', 7) ORDER BY created DESC LIMIT 20"
    ),
    "charges_by_merchant": (
        "SELECT * FROM payments.charges WHERE merchant_id = key('merchant', 7) ORDER BY created DESC LIMIT 20"
    ),
    "charges_by_metadata": (
        "SELECT * FROM payments.charges WHERE merchant_id = key('merchant', 77) AND metadata @> '{\"order\": \"o77\"}'"
    ),
    "charges_by_payment_intent": "SELECT * FROM payments.charges WHERE payment_intent_id = key('intent', 77)",
    "charges_by_payment_method": (
        "SELECT * FROM payments.charges WHERE payment_method_id = key('method', 7) ORDER BY created DESC LIMIT 20"
    ),
    "customers_by_merchant": (
        "SELECT * FROM payments.customers WHERE merchant_id = key('merchant', 7) AND deleted_at IS NULL "
        "ORDER BY created DESC LIMIT 20"
    ),
    "customers_by_metadata": (
        "SELECT * FROM payments.customers WHERE merchant_id = key('merchant', 77) "
        'AND metadata @> \'{"reference": "c77"}\''
    ),
    "disputes_by_charge": f"SELECT * FROM payments.disputes {OF_CHARGE}",
    "early_fraud_warnings_by_charge": f"SELECT * FROM payments.early_fraud_warnings {OF_CHARGE}",
    "events_by_object": (
        "SELECT * FROM payments.events WHERE object_id = key('charge', 77) ORDER BY created DESC LIMIT 20"
    ),
    "events_by_time": "SELECT * FROM payments.events WHERE created >= at(30000) AND created < at(30060)",
    "fee_details_by_balance_transaction": (
        "SELECT * FROM payments.fee_details WHERE balance_transaction_id = key('movement', 77)"
    ),
    "invoice_lines_by_invoice": "SELECT * FROM payments.invoice_lines WHERE invoice_id = key('invoice', 77)",
    "invoices_by_customer": (
        "SELECT * FROM payments.invoices WHERE customer_id = key('customer', 7) ORDER BY created DESC LIMIT 20"
    ),
    "invoices_by_subscription": (
        "SELECT * FROM payments.invoices WHERE subscription_id = key('subscription', 7) "
        "ORDER BY period_start DESC LIMIT 1"
    ),
    "invoices_that_are_open": (
        "SELECT * FROM payments.invoices WHERE status = 'open' AND due_date < at(10000) ORDER BY due_date LIMIT 50"
    ),
    "payment_intents_by_customer": (
        "SELECT * FROM payments.payment_intents WHERE customer_id = key('customer', 7) ORDER BY created DESC LIMIT 20"
    ),
    "payment_intents_by_invoice": "SELECT * FROM payments.payment_intents WHERE invoice_id = key('invoice', 77)",
    "payment_intents_by_merchant": (
        "SELECT * FROM payments.payment_intents WHERE merchant_id = key('merchant', 7) ORDER BY created DESC LIMIT 20"
    ),
    "payment_intents_that_wait": (
        "SELECT * FROM payments.payment_intents WHERE status IN ('requires_payment_method', 'requires_confirmation', "
        "'requires_action', 'requires_capture') AND created < at(10000) ORDER BY created LIMIT 50"
    ),
    "payment_methods_by_card": "SELECT * FROM payments.payment_methods WHERE card_fingerprint = md5('card77')",
    "payment_methods_by_customer": "SELECT * FROM payments.payment_methods WHERE customer_id = key('customer', 7)",
    "payouts_by_merchant": (
        "SELECT * FROM payments.payouts WHERE merchant_id = key('merchant', 7) ORDER BY created DESC LIMIT 20"
    ),
    "payouts_on_their_way": (
        "SELECT * FROM payments.payouts WHERE status IN ('pending', 'in_transit') AND arrival_date <= '2026-01-03'"
    ),
    "prices_by_product": "SELECT * FROM payments.prices WHERE product_id = key('product', 7) AND active",
    "products_by_merchant": "SELECT * FROM payments.products WHERE merchant_id = key('merchant', 7) AND active",
    "refunds_by_charge": f"SELECT sum(amount) FROM payments.refunds {OF_CHARGE}",
    "reviews_by_charge": f"SELECT * FROM payments.reviews {OF_CHARGE}",
    "reviews_that_are_open": "SELECT * FROM payments.reviews WHERE open ORDER BY created LIMIT 50",
    "subscription_items_by_period_end": (
        "SELECT * FROM payments.subscription_items WHERE current_period_end <= at(21700) "
        "ORDER BY current_period_end LIMIT 50"
    ),
    "subscription_items_by_subscription": (
        "SELECT * FROM payments.subscription_items WHERE subscription_id = key('subscription', 7)"
    ),
    "subscriptions_by_customer": "SELECT * FROM payments.subscriptions WHERE customer_id = key('customer', 7)",
    "subscriptions_that_bill": (
        "SELECT * FROM payments.subscriptions WHERE merchant_id = key('merchant', 8) "
        "AND status IN ('trialing', 'active', 'past_due')"
    ),
}


@pytest.fixture(scope="module")
def database(new_database: NewDatabase) -> Settings:
    settings = new_database()
    migrate(settings)
    with connect(settings, autocommit=True) as connection:
        ensure_partitions(connection, MONTHS)
        connection.execute(FUNCTIONS)
        # Neither foreign keys nor triggers: what is measured are plans.
        connection.execute("SET session_replication_role = replica")
        for table, (count, columns, values) in ROWS.items():
            rows = f"SELECT {values} FROM generate_series(0, {count - 1}) AS n"
            connection.execute(f"INSERT INTO payments.{table} ({columns}) {rows}".encode())
        connection.execute("VACUUM (ANALYZE) " + ", ".join(f"payments.{table}" for table in ROWS))
    return settings


@pytest.fixture
def connection(database: Settings) -> Iterator[Connection]:
    with connect(database) as connection:
        yield connection


def indexes_of(plan: dict[str, Any]) -> set[str]:
    used = {plan["Index Name"]} if "Index Name" in plan else set()
    return used.union(*(indexes_of(below) for below in plan.get("Plans", [])))


def indexes_used(connection: Connection, query: str) -> set[str]:
    """The indexes in the plan of a query; for a partition's index, the table's."""
    ((plan,),) = connection.execute(f"EXPLAIN (FORMAT JSON) {query}".encode()).fetchall()
    used = indexes_of((plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"])
    roots = connection.execute(
        "SELECT coalesce(pg_partition_root(index)::text, index::text) FROM unnest(%s::text[]) AS name, "
        "LATERAL (SELECT to_regclass('payments.' || name)) AS found (index)",
        [sorted(used)],
    )
    return {name for (name,) in roots}


@pytest.mark.parametrize("index", sorted(QUERIES))
def test_the_query_that_an_index_is_there_for_uses_it(connection: Connection, index: str) -> None:
    assert connection.execute(QUERIES[index].encode()).fetchall()
    assert index in indexes_used(connection, QUERIES[index])


def test_every_index_has_its_query(connection: Connection) -> None:
    # Those of primary keys and unique constraints serve those.
    names = connection.execute(
        "SELECT indexrelid::regclass::text FROM pg_index INNER JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE relnamespace = 'payments'::regnamespace AND NOT relispartition AND NOT indisunique"
    )
    assert {name for (name,) in names} == set(QUERIES)


def test_a_stretch_of_time_reads_few_pages_of_the_events(connection: Connection) -> None:
    ((plan,),) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {QUERIES['events_by_time']}".encode()).fetchall()
    (pages,) = one(connection, "SELECT relpages FROM pg_class WHERE relname = 'events_2026_02'")

    def lossy(node: dict[str, Any]) -> int:
        return int(node.get("Lossy Heap Blocks", 0)) + sum(lossy(below) for below in node.get("Plans", []))

    assert 0 < lossy(plan[0]["Plan"]) <= 64 < int(str(pages)) / 4


def test_a_customer_who_left_is_no_longer_in_the_list_of_the_merchant(connection: Connection) -> None:
    customers = QUERIES["customers_by_merchant"].replace("*", "id")
    before = connection.execute(customers.encode()).fetchall()
    connection.execute("UPDATE payments.customers SET deleted_at = now() WHERE id = %s", before[0])

    after = connection.execute(customers.encode()).fetchall()
    assert after[:-1] == before[1:]
    assert "customers_by_merchant" in indexes_used(connection, customers)
    connection.rollback()
