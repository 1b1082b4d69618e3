{{ current_rows('customers', rename={'id': 'customer_id'}) }}
