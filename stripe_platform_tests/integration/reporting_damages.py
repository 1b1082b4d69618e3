"""Damages to what is in the reporting currency, and to the marts of merchants and customers."""

from stripe_platform_tests.integration.damage import Damage, doubled, mart, null_row

FIRST_DAYS = "int_exchange_rates_has_one_rate_per_currency_and_first_day"
LAST_DAYS = "int_exchange_rates_has_one_rate_per_currency_and_last_day"
A_DAY_OR_LONGER = "int_exchange_rates_hold_for_a_day_or_longer"
RATE_DAMAGES = [
    doubled("intermediate.int_exchange_rates", "true", FIRST_DAYS, LAST_DAYS),
    mart("int_exchange_rates", "valid_to = valid_from", A_DAY_OR_LONGER, schema="intermediate"),
    Damage(
        "two rates of a currency are used from now on",
        "insert into intermediate.int_exchange_rates select * replace (date '2030-01-01' as valid_from) "
        "from intermediate.int_exchange_rates",
        (LAST_DAYS,),
    ),
    null_row("intermediate.int_exchange_rates"),
]
GMV, FEES = "merchant_gmv_is_that_of_the_charges", "merchant_fees_are_in_the_ledger"
GMV_RATES = "merchant_gmv_rates_follow_from_its_sums"
AS_IT_WAS = "merchant_gmv_in_the_reporting_currency_is_as_it_was"
COHORTS, EVERY_MONTH = "cohorts_are_the_customers_and_their_money", "cohorts_have_every_month"
ALL_AT_FIRST = "customer_cohorts_begin_with_all_their_customers"
COHORT_RATES = "customer_cohorts_rates_follow_from_their_sums"
RFM, SCORES_FOLLOW = "rfm_is_that_of_the_charges", "rfm_scores_follow_what_they_score"
ONE_TO_FIVE = "customer_rfm_scores_are_one_to_five_for_all_who_paid"
EVERY_DAY, ROLLING = "rolling_revenue_has_every_day", "rolling_totals_are_those_of_the_days"
GMV_DAMAGES = [
    doubled("marts.merchant_gmv", "true", "merchant_gmv_has_one_row_per_*", GMV),
    mart("merchant_gmv", "gmv = gmv + 1", GMV_RATES, AS_IT_WAS, GMV),
    mart("merchant_gmv", "average_order = average_order + 1", GMV_RATES),
    mart("merchant_gmv", "active_customers = charges + 1", GMV_RATES),
    mart("merchant_gmv", "take_rate = 0.5", GMV_RATES),
    mart("merchant_gmv", "gmv_reporting = gmv_reporting + 1", GMV_RATES, AS_IT_WAS, GMV),
    mart("merchant_gmv", "fees = fees + 1", AS_IT_WAS, FEES),
    mart("merchant_gmv", "month = '2020-01-01'", "relationships_merchant_gmv_month_*", GMV, FEES),
    null_row("marts.merchant_gmv", GMV_RATES, AS_IT_WAS, GMV),
]
COHORT_DAMAGES = [
    doubled("marts.customer_cohorts", "months_since = 0", "customer_cohorts_has_one_row_per_*", COHORTS, EVERY_MONTH),
    mart("customer_cohorts", "retained = retained - 1", ALL_AT_FIRST, COHORT_RATES, COHORTS),
    mart("customer_cohorts", "retention = 0.5", COHORT_RATES),
    mart("customer_cohorts", "ltv_reporting = ltv_reporting + 1", COHORT_RATES),
    mart("customer_cohorts", "revenue_reporting = revenue_reporting + 1", COHORTS, EVERY_MONTH),
    mart("customer_cohorts", "charges_without_rate = charges_without_rate + 1", COHORTS),
    mart("customer_cohorts", "months_since = months_since + 1", COHORTS, EVERY_MONTH),
    null_row("marts.customer_cohorts", ALL_AT_FIRST, COHORT_RATES),
]


def one_with_less(column: str, value: str, score: str) -> Damage:
    return Damage(
        f"a customer with less {column} has a higher {score}",
        f"insert into marts.customer_rfm "
        f"select * replace ('less {column}' as customer_id, {value} as {column}, 2 as {score}) from marts.customer_rfm",
        (SCORES_FOLLOW, RFM),
    )


RFM_DAMAGES = [
    doubled("marts.customer_rfm", "true", "unique_customer_rfm_*", RFM),
    mart("customer_rfm", "failed_charges = failed_charges + 1", RFM),
    mart("customer_rfm", "monetary_reporting = monetary_reporting + 1", RFM),
    mart("customer_rfm", "recency_score = 0", ONE_TO_FIVE),
    mart("customer_rfm", "recency_days = -1", ONE_TO_FIVE),
    mart("customer_rfm", "last_charge_at = null", ONE_TO_FIVE),
    one_with_less("last_charge_at", "first_charge_at", "recency_score"),
    one_with_less("frequency", "1", "frequency_score"),
    one_with_less("monetary_reporting", "1", "monetary_score"),
    null_row("marts.customer_rfm", ONE_TO_FIVE, RFM),
]
ROLLING_DAMAGES = [
    doubled("marts.rolling_revenue", "true", "rolling_revenue_has_one_row_per_*", ROLLING),
    Damage(
        "a day without revenue has no row",
        "delete from marts.rolling_revenue where day = '2026-02-01' and currency = 'jpy'",
        (EVERY_DAY,),
    ),
    mart("rolling_revenue", "gross = gross + 1", ROLLING),
    mart("rolling_revenue", "gross_7_days = gross_7_days + 1", ROLLING),
    mart("rolling_revenue", "net_28_days = net_28_days + 1", ROLLING),
    mart("rolling_revenue", "balance = balance + 1", ROLLING),
    mart("rolling_revenue", "net_reporting = net_reporting + 1", ROLLING),
    mart("rolling_revenue", "gross_7_days_reporting = gross_7_days_reporting + 1", ROLLING),
    mart("rolling_revenue", "net_28_days_reporting = null", ROLLING),
    null_row("marts.rolling_revenue", EVERY_DAY, ROLLING),
]
REPORTING_DAMAGES = [
    *RATE_DAMAGES,
    *GMV_DAMAGES,
    *COHORT_DAMAGES,
    *RFM_DAMAGES,
    *ROLLING_DAMAGES,
]
