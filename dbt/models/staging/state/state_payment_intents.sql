{{ latest_state('payment_intents', key=['id']) }}
