"""Damages to a build, each with the dbt tests that are there for it."""

from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.warehouse.staging import staging_model
from stripe_platform_tests.integration.damage import Damage, doubled, mart, null_row
from stripe_platform_tests.integration.dimension_damages import DIMENSION_DAMAGES, DIMENSIONS, current
from stripe_platform_tests.integration.reporting_damages import (
    COHORTS,
    EVERY_DAY,
    EVERY_MONTH,
    FEES,
    GMV,
    REPORTING_DAMAGES,
    RFM,
    ROLLING,
)
from stripe_platform_tests.integration.test_warehouse import CHARGE, key
from stripe_platform_tests.integration.warehouse_damages_billing import BILLING_DAMAGES
from stripe_platform_tests.integration.warehouse_damages_billing import COUNTS as DISPUTE_COUNTS

PAYOUT, FEE = key(108), key(107)
LEDGER, CHARGES, REVENUE = "ledger_money_is_conserved", "charge_money_is_conserved", "daily_revenue_is_the_ledger"
AUTHORIZATION = "authorization_counts_are_those_of_the_charges"
DECLINED, DISPUTED = "decline_codes_are_those_of_the_charges", "disputed_amounts_are_those_of_the_disputes"
RECONCILED, PAID_OUT = "paid_payouts_are_reconciled", "payout_reconciliation_is_the_ledger"
PAYOUT_NET = "payout_net_is_in_the_ledger"


def fact(kind: str, column: str, value: str, *fails: str) -> Damage:
    where = f"charge_id = '{CHARGE}'" if kind == "charges" else f"transaction_id = '{PAYOUT}'"
    return Damage(
        f"{column} of a row of fact_{kind} is {value}",
        f"update marts.fact_{kind} set {column} = {value} where {where}",
        fails,
    )


def orphan(table: str, column: str) -> Damage:
    return Damage(
        f"{column} of {table} names no row",
        f"update staging_state.state_{table} set {column} = 'nobody'",
        (f"relationships_at_cut_{staging_model(table)}_{column}_*",),
    )


def staging_damages() -> list[Damage]:
    # The marts hold the rows of these as they were built.
    compared = {
        "charges": (CHARGES,),
        "balance_transactions": (LEDGER,),
        "refunds": ("refund_money_is_conserved",),
        "disputes": ("dispute_money_is_conserved",),
        "payouts": ("payout_money_is_conserved",),
    }
    damages = []
    for table in CAPTURED_TABLES:
        model, state = staging_model(table.name), f"staging_state.state_{table.name}"
        others = compared.get(table.name, ())
        shown = (current(DIMENSIONS[table.name]),) if table.name in DIMENSIONS else ()
        damages += [
            Damage(
                f"a row without values in {model}",
                f"insert into {state} (_deleted) values (false)",
                (f"not_null_{model}_*", *others, *shown),
            ),
            # `unique`, or `unique_together` where the key has two columns.
            doubled(state, "true", f"unique*_{model}_*", *others),
        ]
    return [
        *damages,
        orphan("charges", "payment_intent_id"),
        orphan("balance_transactions", "payout_id"),
        orphan("invoice_lines", "invoice_id"),
    ]


MARTS_DAMAGES = [
    null_row("marts.fact_transactions", "fact_transactions_net_is_amount_less_fee", LEDGER),
    doubled(
        "marts.fact_transactions", f"transaction_id = '{PAYOUT}'", "unique_fact_transactions_*", LEDGER, PAYOUT_NET
    ),
    fact("transactions", "merchant_id", "'nobody'", "relationships_at_cut_fact_transactions_merchant_id_*"),
    fact("transactions", "currency", "'xxx'", "relationships_at_cut_fact_transactions_currency_*", LEDGER),
    fact("transactions", "reporting_category", "'new'", "accepted_values_fact_transactions_reporting_category_*"),
    fact("transactions", "status", "'new'", "accepted_values_fact_transactions_status_*"),
    fact("transactions", "net", "net + 1", "fact_transactions_net_is_amount_less_fee", LEDGER, PAYOUT_NET),
    fact(
        "transactions",
        "net_reporting",
        "net_reporting + 1",
        *("fact_transactions_net_reporting_is_amount_less_fee", PAYOUT_NET),
    ),
    Damage(
        "a movement of revenue is larger than in the ledger",
        f"update marts.fact_transactions set amount = amount + 1, net = net + 1 where transaction_id = '{FEE}'",
        (LEDGER, REVENUE),
    ),
    null_row("marts.fact_charges", "fact_charges_amounts_are_in_order", CHARGES, AUTHORIZATION),
    doubled(
        "marts.fact_charges",
        "status = 'failed'",
        *("unique_fact_charges_*", CHARGES, AUTHORIZATION, DECLINED, RFM),
    ),
    fact("charges", "merchant_id", "'nobody'", "relationships_at_cut_fact_charges_merchant_id_*", GMV, FEES),
    fact("charges", "customer_id", "'nobody'", "relationships_at_cut_fact_charges_customer_id_*", COHORTS, RFM),
    fact("charges", "payment_method_id", "'none'", "relationships_at_cut_fact_charges_payment_method_id_*"),
    fact("charges", "currency", "'xxx'", "relationships_at_cut_fact_charges_currency_*", CHARGES, GMV, FEES),
    fact(
        "charges",
        "status",
        "'new'",
        *("accepted_values_fact_charges_status_*", CHARGES, AUTHORIZATION, DISPUTE_COUNTS, GMV, FEES),
        *(COHORTS, RFM),
    ),
    fact("charges", "outcome_type", "'new'", "accepted_values_fact_charges_outcome_type_*"),
    fact("charges", "network_status", "'new'", "accepted_values_fact_charges_network_status_*", AUTHORIZATION),
    fact("charges", "amount_refunded", "amount + 1", "fact_charges_amounts_are_in_order", CHARGES),
    fact("charges", "amount_disputed", "amount_disputed + 1", DISPUTED),
    fact("charges", "amount_disputed", "-1", "fact_charges_amounts_are_in_order", DISPUTED),
    fact("charges", "net", "net + 1", "charge_net_is_in_the_ledger"),
    null_row("marts.dim_date", "date_spine_is_complete"),
    doubled("marts.dim_date", "true", "unique_dim_date_*", "date_spine_is_complete"),
    Damage("a day is missing", "delete from marts.dim_date where day = '2026-01-15'", ("date_spine_is_complete",)),
    Damage(
        "revenue on a day that is no day",
        "delete from marts.dim_date where day = '2026-02-01'",
        (
            *("relationships_daily_revenue_day_*", "relationships_authorization_rates_day_*"),
            *("relationships_dispute_rates_month_*", "relationships_merchant_gmv_month_*"),
            "dispute_counts_are_those_of_the_facts",
            *(COHORTS, EVERY_MONTH, EVERY_DAY),
        ),
    ),
    mart(
        "daily_revenue",
        "fees_reporting = fees_reporting + 1",
        "daily_revenue_net_reporting_is_gross_less_refunds_disputes_and_fees",
    ),
    mart(
        "daily_revenue",
        "fees_reporting = fees_reporting + 1, net_reporting = net_reporting - 1",
        *(REVENUE, ROLLING),
    ),
    mart("daily_revenue", "refund_failure_count = refund_failure_count + 1", REVENUE),
    mart("daily_revenue", "dispute_reversal_count = dispute_count + 1", REVENUE),
    null_row("marts.daily_revenue", "daily_revenue_net_is_gross_less_refunds_disputes_and_fees", REVENUE),
    doubled("marts.daily_revenue", "true", "daily_revenue_has_one_row_per_day_merchant_and_currency", REVENUE, ROLLING),
    Damage(
        "gross that is not in net",
        "update marts.daily_revenue set gross = gross + 1",
        ("daily_revenue_net_is_gross_less_refunds_disputes_and_fees", ROLLING),
    ),
    Damage(
        "revenue that is not in the ledger",
        "update marts.daily_revenue set gross = gross + 1, net = net + 1",
        (REVENUE, ROLLING),
    ),
]
# The rows without values come last: all damages together must be seen too, and the others change every row.
REFUNDS, REFUND_NET = "refund_money_is_conserved", "refund_net_is_in_the_ledger"
ALL_OR_NOTHING = "fact_refunds_amount_refunded_is_all_or_nothing"
REFUND_DAMAGES = [
    doubled("marts.fact_refunds", "true", "unique_fact_refunds_*", REFUNDS),
    mart("fact_refunds", "charge_id = 'none'", "relationships_at_cut_fact_refunds_charge_id_*"),
    mart("fact_refunds", "merchant_id = 'nobody'", "relationships_at_cut_fact_refunds_merchant_id_*"),
    mart("fact_refunds", "currency = 'xxx'", "relationships_at_cut_fact_refunds_currency_*", REFUNDS),
    mart("fact_refunds", "reason = 'new'", "accepted_values_fact_refunds_reason_*"),
    mart("fact_refunds", "status = 'new'", "accepted_values_fact_refunds_status_*", REFUNDS, ALL_OR_NOTHING),
    mart("fact_refunds", "amount = amount + 1, amount_refunded = 0", REFUNDS, ALL_OR_NOTHING),
    mart("fact_refunds", "net = net + 1", REFUND_NET),
    mart("fact_refunds", "fee_reporting = fee_reporting + 1", REFUND_NET),
    mart("fact_refunds", "net_reporting = null", REFUND_NET),
    null_row("marts.fact_refunds", REFUNDS, REFUND_NET, ALL_OR_NOTHING),
]
DISPUTES, DISPUTE_NET = "dispute_money_is_conserved", "dispute_net_is_in_the_ledger"
DECIDED = "fact_disputes_only_a_decided_amount_is_won_or_lost"
DISPUTE_DAMAGES = [
    doubled("marts.fact_disputes", "true", "unique_fact_disputes_*", DISPUTES, DISPUTED, DISPUTE_COUNTS),
    mart(
        "fact_disputes",
        "charge_id = 'none'",
        "relationships_at_cut_fact_disputes_charge_id_*",
        DISPUTED,
        DISPUTE_COUNTS,
    ),
    mart("fact_disputes", "merchant_id = 'nobody'", "relationships_at_cut_fact_disputes_merchant_id_*"),
    mart("fact_disputes", "currency = 'xxx'", "relationships_at_cut_fact_disputes_currency_*", DISPUTES),
    mart("fact_disputes", "reason = 'new'", "accepted_values_fact_disputes_reason_*"),
    mart("fact_disputes", "status = 'new'", "accepted_values_fact_disputes_status_*", DISPUTES, DECIDED),
    mart("fact_disputes", "amount_lost = amount", DECIDED),
    mart("fact_disputes", "is_closed = false", DECIDED),
    mart("fact_disputes", "net = net + 1, reinstated = reinstated + 1", DISPUTE_NET),
    mart("fact_disputes", "withdrawn = 0", DISPUTE_NET),
    mart("fact_disputes", "withdrawn_reporting = withdrawn_reporting + 1", DISPUTE_NET),
    mart("fact_disputes", "reinstated_reporting = null", DISPUTE_NET),
    mart("fact_disputes", "fee_reporting = fee_reporting + 1, net_reporting = net_reporting - 1", DISPUTE_NET),
    null_row("marts.fact_disputes", DISPUTES, DECIDED),
]
PAYOUTS = "payout_money_is_conserved"
PAYOUT_DAMAGES = [
    doubled("marts.fact_payouts", "true", "unique_fact_payouts_*", PAYOUTS),
    mart("fact_payouts", "merchant_id = 'nobody'", "relationships_at_cut_fact_payouts_merchant_id_*"),
    mart("fact_payouts", "currency = 'xxx'", "relationships_at_cut_fact_payouts_currency_*", PAYOUTS),
    mart("fact_payouts", "status = 'new'", "accepted_values_fact_payouts_status_*", PAYOUTS),
    mart("fact_payouts", "method = 'new'", "accepted_values_fact_payouts_method_*"),
    mart("fact_payouts", "type = 'new'", "accepted_values_fact_payouts_type_*"),
    mart("fact_payouts", "reconciliation_status = 'new'", "accepted_values_fact_payouts_reconciliation_status_*"),
    mart("fact_payouts", "net = net + 1", PAYOUT_NET),
    mart("fact_payouts", "fee_reporting = fee_reporting + 1", PAYOUT_NET),
    mart("fact_payouts", "net_reporting = null", PAYOUT_NET),
    null_row("marts.fact_payouts", PAYOUTS, PAYOUT_NET),
]
DIFFERENCE = "payout_reconciliation_difference_is_amount_less_net"
NET_REPORTING = "payout_reconciliation_net_reporting_is_gross_less_fees"
WITHOUT_DIFFERENCE = "payout_reconciliation_is_reconciled_without_difference_or_foreign_rows"
RECONCILIATION_DAMAGES = [
    Damage(
        "no damage: a difference of a payout that was asked for as an amount",
        "update marts.payout_reconciliation set amount = amount + 1, difference = 1, is_reconciled = false, "
        "reconciliation_status = 'not_applicable'",
        (),
    ),
    doubled("marts.payout_reconciliation", "true", "unique_payout_reconciliation_*"),
    mart("payout_reconciliation", "payout_id = 'none', movements = 0, net = 0, gross = 0, fees = 0, amount = 0, "
         "gross_reporting = 0, fees_reporting = 0, net_reporting = 0",
         "relationships_at_cut_payout_reconciliation_payout_id_*"),
    mart("payout_reconciliation", "reconciliation_status = 'completed', amount = net + 1, difference = 1, "
         "is_reconciled = false", RECONCILED),
    mart("payout_reconciliation", "foreign_movements = 1, is_reconciled = false", RECONCILED),
    mart("payout_reconciliation", "difference = 1, is_reconciled = false", RECONCILED, DIFFERENCE),
    mart("payout_reconciliation", "is_reconciled = false", WITHOUT_DIFFERENCE),
    mart("payout_reconciliation", "gross_reporting = gross_reporting + 1", NET_REPORTING),
    mart("payout_reconciliation", "fees_reporting = fees_reporting + 1, net_reporting = net_reporting - 1", PAID_OUT),
    mart("payout_reconciliation", "movements = movements + 1", PAID_OUT),
    mart("payout_reconciliation", "net = net + 1, gross = gross + 1, amount = amount + 1", PAID_OUT),
    null_row("marts.payout_reconciliation", DIFFERENCE, WITHOUT_DIFFERENCE, PAID_OUT),
]  # fmt: skip
MINOR_UNITS = "dim_currency_minor_units_follow_the_exponent"
REFERENCE_DAMAGES = [
    doubled("marts.dim_currency", "true", "unique_dim_currency_*"),
    mart("dim_currency", "minor_units = minor_units + 1", MINOR_UNITS),
    null_row("marts.dim_country"),
    doubled("marts.dim_country", "true", "unique_dim_country_*"),
    null_row("marts.dim_currency", MINOR_UNITS),
]
ADD_UP, SHARES = "authorization_rates_parts_add_up", "authorization_rates_are_shares_or_null"
AUTHORIZATION_DAMAGES = [
    doubled("marts.authorization_rates", "true", "authorization_rates_has_one_row_per_*", AUTHORIZATION),
    mart("authorization_rates", "without_outcome = without_outcome + 1", ADD_UP),
    mart("authorization_rates", "network_authorization_rate = 0.9", SHARES),
    mart("authorization_rates", "payment_success_rate = 2", SHARES),
    mart("authorization_rates", "blocked = blocked + 1", AUTHORIZATION),
    null_row("marts.authorization_rates", ADD_UP, SHARES, AUTHORIZATION),
]
DECLINE_DAMAGES = [
    doubled("marts.decline_codes", "true", "decline_codes_has_one_row_per_*", DECLINED),
    mart("decline_codes", "day = day - 3000", "relationships_decline_codes_day_*", DECLINED),
    mart("decline_codes", "declined = declined + 1", DECLINED),
    mart("decline_codes", "decline_code = 'new'", DECLINED),
    null_row("marts.decline_codes", DECLINED),
]
DAMAGES = [
    *staging_damages(),
    *MARTS_DAMAGES,
    *REFUND_DAMAGES,
    *DISPUTE_DAMAGES,
    *PAYOUT_DAMAGES,
    *RECONCILIATION_DAMAGES,
    *REFERENCE_DAMAGES,
    *AUTHORIZATION_DAMAGES,
    *DECLINE_DAMAGES,
    *REPORTING_DAMAGES,
    *BILLING_DAMAGES,
    *DIMENSION_DAMAGES,
]
