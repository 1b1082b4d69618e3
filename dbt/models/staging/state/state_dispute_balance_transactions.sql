{{ latest_state('dispute_balance_transactions', key=['dispute_id', 'kind']) }}
