{{ current_rows('countries') }}
