{{ current_rows('balance_transactions', rename={'id': 'transaction_id'}) }}
