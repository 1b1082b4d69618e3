{{ current_rows('disputes', rename={'id': 'dispute_id'}) }}
