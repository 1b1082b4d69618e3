"""How captured tables are named in the staging layer."""

LEDGER = "balance_transactions"


def staging_model(table: str) -> str:
    """The dbt model that shows a captured table's current rows: the ledger is `stg_transactions`."""
    return "stg_transactions" if table == LEDGER else f"stg_{table}"
