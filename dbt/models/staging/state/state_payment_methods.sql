{{ latest_state('payment_methods', key=['id']) }}
