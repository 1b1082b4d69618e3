{{ latest_state('products', key=['id']) }}
