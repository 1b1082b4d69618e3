{{ latest_state('countries', key=['iso2']) }}
