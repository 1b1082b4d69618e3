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
SUCCEEDED_DAMAGES = [
    doubled("intermediate.int_succeeded_charges", "true", "unique_int_succeeded_charges_*"),
    null_row("intermediate.int_succeeded_charges"),
]
REPORTING_DAMAGES = [*RATE_DAMAGES, *SUCCEEDED_DAMAGES]
