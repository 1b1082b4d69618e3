{{ current_rows('subscription_items', rename={'id': 'subscription_item_id'}) }}
