{{ current_rows('charge_outcomes') }}
