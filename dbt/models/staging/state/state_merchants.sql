{{ latest_state('merchants', key=['id']) }}
