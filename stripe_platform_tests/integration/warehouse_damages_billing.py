"""Damages to the marts of subscriptions, disputes and fraud."""

from stripe_platform_tests.integration.damage import Damage, doubled, mart, null_row

COUNTS, SAME_BY_REASON = "dispute_counts_are_those_of_the_facts", "dispute_reasons_are_those_of_the_rates"
WITHIN, QUOTIENTS = "dispute_rates_parts_are_within_the_whole", "dispute_rates_are_quotients_or_null"
WATCHED, REASONS_WITHIN = "dispute_rates_a_network_watches_its_own_cards", "dispute_reasons_parts_are_within_the_whole"
DISPUTE_DAMAGES = [
    doubled("intermediate.int_disputes", "true", "unique_int_disputes_*"),
    doubled("marts.card_network_limits", "true", "unique_card_network_limits_*"),
    null_row("marts.card_network_limits"),
    doubled(
        "marts.dispute_rates",
        "disputes > 0",
        "dispute_rates_has_one_row_per_month_merchant_and_brand",
        COUNTS,
        SAME_BY_REASON,
    ),
    mart("dispute_rates", "month = month + 3", "relationships_dispute_rates_month_*", COUNTS, SAME_BY_REASON),
    mart("dispute_rates", "lost = lost + 2, win_rate = won / (won + lost + 2)", WITHIN, SAME_BY_REASON),
    Damage(
        "charges that are not divided by in the month after theirs",
        "delete from marts.dispute_rates "
        "where successful_charges + disputes + disputes_of_charges + fraud_warnings = 0",
        (COUNTS,),
    ),
    mart("dispute_rates", "watched_events = watched_events + 1", WATCHED),
    mart("dispute_rates", "watched_charges = watched_charges + 1", WATCHED),
    mart("dispute_rates", "dispute_rate = 0.9", QUOTIENTS),
    mart("dispute_rates", "win_rate = 0.9", QUOTIENTS),
    mart("dispute_rates", "vamp_ratio = null", WATCHED),
    mart("dispute_rates", "exceeds_limit = null", WATCHED),
    mart("dispute_rates", "card_brand = 'mastercard'", WATCHED),
    mart("dispute_rates", "disputes_of_charges = disputes_of_charges + 1", COUNTS, QUOTIENTS),
    mart("dispute_rates", "amount_disputed_reporting = amount_disputed_reporting + 1", SAME_BY_REASON),
    doubled(
        "marts.dispute_reasons", "true", "dispute_reasons_has_one_row_per_month_merchant_and_reason", SAME_BY_REASON
    ),
    mart("dispute_reasons", "month = month + 3", "relationships_dispute_reasons_month_*", SAME_BY_REASON),
    mart("dispute_reasons", "lost = 1", REASONS_WITHIN, SAME_BY_REASON),
    null_row("intermediate.int_disputes"),
    null_row("marts.dispute_rates", WITHIN, QUOTIENTS, WATCHED),
    null_row("marts.dispute_reasons", REASONS_WITHIN, SAME_BY_REASON),
]
CHANGE, FITS = "mrr_change_is_mrr_less_that_of_the_month_before", "mrr_change_fits_the_movement"
NO_HOLE, MOVEMENTS = "mrr_has_no_hole", "mrr_movements_are_the_change_of_mrr"
MRR_DAMAGES = [
    doubled("intermediate.int_recurring_lines", "true", "int_recurring_lines_has_one_row_per_item_and_month"),
    doubled("marts.mrr", "movement = 'unchanged'", "mrr_has_one_row_per_month_and_item", NO_HOLE, MOVEMENTS),
    Damage(
        "a month of a subscription item is missing",
        "delete from marts.mrr where movement = 'expansion'",
        (NO_HOLE, MOVEMENTS),
    ),
    Damage("the churn of an item is missing", "delete from marts.mrr where movement = 'churn'", (MOVEMENTS,)),
    mart("mrr", "month = month + 1", "relationships_mrr_month_*"),
    mart("mrr", "previous_mrr = previous_mrr + 1, change = change - 1", FITS, NO_HOLE, MOVEMENTS),
    mart("mrr", "change_reporting = change_reporting + 1", CHANGE),
    mart("mrr", "movement = 'expansion'", FITS),
    mart("mrr", "movement = 'gone'", "accepted_values_mrr_movement_*", FITS),
    null_row("intermediate.int_recurring_lines"),
    null_row("marts.mrr", CHANGE, FITS),
]
CELLS, CAUGHT_OR_MISSED = "fraud_loss_cells_are_the_charges", "fraud_loss_fraud_is_caught_or_missed"
ALL_SCORES = "fraud_loss_is_of_all_scores"
FIVE_CHARGES = dict.fromkeys(("caught", "missed", "false_positives", "passed", "without_label"), "1") | {
    "day": "date '2026-01-31'",
    "merchant_id": "'shop'",
    "model_version": "'one'",
    "charges": "5",
}


def fraud_loss(what: str, *fails: str, **values: str) -> Damage:
    """The marts of fraud are empty, so a row comes with the damage: five charges that nothing scored."""
    row = FIVE_CHARGES | values
    sql = f"insert into marts.fraud_loss ({', '.join(row)}) values ({', '.join(row.values())})"
    return Damage(what, sql, (*fails, ALL_SCORES))


FRAUD_DAMAGES = [
    fraud_loss("a row of charges that no model has scored"),
    fraud_loss("a scored charge in none of the cells", CELLS, charges="6", day="date '2026-01-30'"),
    fraud_loss("fraud that is neither caught nor missed", CAUGHT_OR_MISSED, fraud_amount_reporting="1"),
    fraud_loss("fraud on a day that is no day", "relationships_fraud_loss_day_*", day="date '1999-12-31'"),
    Damage(
        "a row of fraud_loss twice",
        f"insert into marts.fraud_loss ({', '.join(FIVE_CHARGES)}) "
        f"select {', '.join(FIVE_CHARGES.values())} from range(2)",
        ("fraud_loss_has_one_row_per_day_merchant_and_model", ALL_SCORES),
    ),
    Damage(
        "a decision that is none",
        "insert into intermediate.int_fraud_scores values ('none', 'one', 0.5, 'new', current_timestamp)",
        ("accepted_values_int_fraud_scores_decision_*",),
    ),
    null_row("intermediate.int_fraud_scores"),
    null_row("marts.fraud_loss", CELLS, CAUGHT_OR_MISSED, ALL_SCORES),
]
BILLING_DAMAGES = [*DISPUTE_DAMAGES, *MRR_DAMAGES, *FRAUD_DAMAGES]
