{{ latest_state('card_fingerprints', key=['fingerprint']) }}
