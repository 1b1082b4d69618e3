{{ current_rows('addresses', rename={'id': 'address_id'}) }}
