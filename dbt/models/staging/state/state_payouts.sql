{{ latest_state('payouts', key=['id']) }}
