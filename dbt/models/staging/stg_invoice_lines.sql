{{ current_rows('invoice_lines', rename={'id': 'invoice_line_id'}) }}
