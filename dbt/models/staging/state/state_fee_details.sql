{{ latest_state('fee_details', key=['id']) }}
