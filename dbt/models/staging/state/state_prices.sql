{{ latest_state('prices', key=['id']) }}
