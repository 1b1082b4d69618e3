{{ current_rows('charges', rename={'id': 'charge_id'}) }}
