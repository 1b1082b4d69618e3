{{ latest_state('subscriptions', key=['id']) }}
