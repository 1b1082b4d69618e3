{{ latest_state('invoices', key=['id']) }}
