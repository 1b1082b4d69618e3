{{ current_rows('payouts', rename={'id': 'payout_id'}) }}
