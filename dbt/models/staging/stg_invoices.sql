{{ current_rows('invoices', rename={'id': 'invoice_id'}) }}
