"""The system of record: tables, migrations, what may be captured, and the import of payments."""
