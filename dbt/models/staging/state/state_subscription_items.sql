{{ latest_state('subscription_items', key=['id']) }}
