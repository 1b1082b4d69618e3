{{ current_rows('reviews', rename={'id': 'review_id'}) }}
