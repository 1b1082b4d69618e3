{{ current_rows('currencies') }}
