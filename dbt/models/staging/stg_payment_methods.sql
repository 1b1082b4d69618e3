{{ current_rows('payment_methods', rename={'id': 'payment_method_id'}) }}
