{{ current_rows('dispute_balance_transactions') }}
