{{ latest_state('currencies', key=['code']) }}
