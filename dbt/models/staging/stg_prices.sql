{{ current_rows('prices', rename={'id': 'price_id'}) }}
