{{ current_rows('fee_details', rename={'id': 'fee_detail_id'}) }}
