{{ latest_state('invoice_lines', key=['id']) }}
