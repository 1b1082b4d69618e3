{{ latest_state('disputes', key=['id']) }}
