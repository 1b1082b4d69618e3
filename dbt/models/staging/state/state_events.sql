{{ latest_state('events', key=['id', 'created']) }}
