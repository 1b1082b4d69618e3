{{ current_rows('products', rename={'id': 'product_id'}) }}
