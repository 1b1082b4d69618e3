{{ latest_state('charge_outcomes', key=['charge_id', 'charge_created']) }}
