{{ latest_state('exchange_rates', key=['day', 'currency']) }}
