{{ latest_state('charges', key=['id', 'created']) }}
