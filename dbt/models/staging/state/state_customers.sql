{{ latest_state('customers', key=['id']) }}
