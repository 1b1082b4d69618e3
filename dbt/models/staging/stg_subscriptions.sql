{{ current_rows('subscriptions', rename={'id': 'subscription_id'}) }}
