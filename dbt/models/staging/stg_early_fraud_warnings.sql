{{ current_rows('early_fraud_warnings', rename={'id': 'early_fraud_warning_id'}) }}
