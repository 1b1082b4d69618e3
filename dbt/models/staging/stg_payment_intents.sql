{{ current_rows('payment_intents', rename={'id': 'payment_intent_id'}) }}
