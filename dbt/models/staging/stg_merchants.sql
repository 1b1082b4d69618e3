{{ current_rows('merchants', rename={'id': 'merchant_id'}) }}
