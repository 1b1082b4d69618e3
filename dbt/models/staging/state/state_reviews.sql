{{ latest_state('reviews', key=['id']) }}
