{{ latest_state('balance_transactions', key=['id', 'created']) }}
