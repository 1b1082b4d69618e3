{{ current_rows('events', rename={'id': 'event_id'}) }}
