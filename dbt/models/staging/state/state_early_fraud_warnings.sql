{{ latest_state('early_fraud_warnings', key=['id']) }}
