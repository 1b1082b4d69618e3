{{ latest_state('refunds', key=['id']) }}
