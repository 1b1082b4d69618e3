{{ current_rows('card_fingerprints') }}
