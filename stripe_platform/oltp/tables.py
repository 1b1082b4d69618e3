"""The one list of captured tables: everything that follows a table by name starts here."""

from dataclasses import dataclass

SCHEMA = "payments"


@dataclass(frozen=True)
class CapturedTable:
    """A table whose every committed change flows to the topics, the raw change log and staging.

    `key` is its primary key; `topic_partitions` is fixed for the life of its topic (a change means a new
    topic and a new snapshot); `monthly` tables are range partitioned by `created`.
    """

    name: str
    description: str
    key: tuple[str, ...]
    topic_partitions: int = 1
    monthly: bool = False

    @property
    def qualified(self) -> str:
        """`schema.table`, as PostgreSQL and Debezium write it."""
        return f"{SCHEMA}.{self.name}"


# Parents before children: the order in which rows can be inserted.
CAPTURED_TABLES: tuple[CapturedTable, ...] = (
    CapturedTable(
        "currencies",
        "Currencies that cards are charged in, with the digits of their minor unit.",
        key=("code",),
    ),
    CapturedTable("countries", "Countries of ISO 3166-1 with their region.", key=("iso2",)),
    CapturedTable(
        "exchange_rates",
        "Euros for one unit of a currency, by day, known before the payments that they convert.",
        key=("day", "currency"),
    ),
    CapturedTable("merchants", "Who is paid.", key=("id",)),
    CapturedTable("customers", "Who pays; without a merchant, a customer of the platform itself.", key=("id",)),
    CapturedTable("card_fingerprints", "Physical cards, one row each, shared by all merchants.", key=("fingerprint",)),
    CapturedTable("payment_methods", "How a customer holds a card.", key=("id",)),
    CapturedTable(
        "charges",
        "Card payments, one row each, with what became of them.",
        key=("id", "created"),
        topic_partitions=4,
        monthly=True,
    ),
    CapturedTable(
        "balance_transactions",
        "The ledger: every movement of a merchant's balance, one row each.",
        key=("id", "created"),
        topic_partitions=4,
        monthly=True,
    ),
    CapturedTable("refunds", "Money given back, one row per attempt.", key=("id",)),
    CapturedTable("disputes", "Payments that the card holder contests.", key=("id",)),
)

TABLES_BY_NAME = {table.name: table for table in CAPTURED_TABLES}
