{{ latest_state('addresses', key=['id']) }}
