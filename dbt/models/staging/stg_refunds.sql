{{ current_rows('refunds', rename={'id': 'refund_id'}) }}
