"""The one list of captured tables: everything that follows a table by name starts here."""

from dataclasses import dataclass

SCHEMA = "payments"


@dataclass(frozen=True)
class CapturedTable:
    """A table whose every committed change flows to the topics, the raw change log and staging.

    `key` is its primary key; `topic_partitions` is fixed for the life of its topic (a change means a new
    topic and a new snapshot); `monthly` tables are range partitioned by `created`, and partitions older than
    `kept_months` are detached (None: kept for ever).
    """

    name: str
    description: str
    key: tuple[str, ...]
    topic_partitions: int = 1
    monthly: bool = False
    kept_months: int | None = None

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
    CapturedTable("addresses", "Where a customer is billed and shipped to.", key=("id",)),
    CapturedTable("card_fingerprints", "Physical cards, one row each, shared by all merchants.", key=("fingerprint",)),
    CapturedTable("payment_methods", "How a customer holds a card.", key=("id",)),
    CapturedTable("products", "What a merchant sells.", key=("id",)),
    CapturedTable("prices", "What a product costs, once or per interval; an amount never changes.", key=("id",)),
    CapturedTable("subscriptions", "Customers who pay again and again.", key=("id",)),
    CapturedTable("subscription_items", "The prices of a subscription, with their current period.", key=("id",)),
    CapturedTable("invoices", "What a customer owes a merchant.", key=("id",)),
    CapturedTable("invoice_lines", "What an invoice is made of.", key=("id",)),
    CapturedTable(
        "payment_intents",
        "A payment from the wish to pay to its end, over all its tries.",
        key=("id",),
        topic_partitions=4,
    ),
    CapturedTable(
        "charges",
        "Card payments, one row each, with what became of them.",
        key=("id", "created"),
        topic_partitions=4,
        monthly=True,
    ),
    CapturedTable(
        "charge_outcomes",
        "What the risk rules and the card network said of a charge.",
        key=("charge_id", "charge_created"),
        topic_partitions=4,
    ),
    CapturedTable("reviews", "Charges that a person looks at.", key=("id",)),
    CapturedTable("early_fraud_warnings", "What card networks report as fraudulent.", key=("id",)),
    CapturedTable("payouts", "Money on its way to a merchant's bank.", key=("id",)),
    CapturedTable(
        "balance_transactions",
        "The ledger: every movement of a merchant's balance, one row each.",
        key=("id", "created"),
        topic_partitions=4,
        monthly=True,
    ),
    CapturedTable("fee_details", "What a fee is made of.", key=("id",), topic_partitions=4),
    CapturedTable("refunds", "Money given back, one row per attempt.", key=("id",)),
    CapturedTable("disputes", "Payments that the card holder contests.", key=("id",)),
    CapturedTable(
        "dispute_balance_transactions",
        "Which ledger rows withdrew and reinstated the money of a dispute.",
        key=("dispute_id", "kind"),
    ),
    CapturedTable(
        "events",
        "The outbox: what happened, for webhooks.",
        key=("id", "created"),
        topic_partitions=4,
        monthly=True,
        kept_months=13,
    ),
)

TABLES_BY_NAME = {table.name: table for table in CAPTURED_TABLES}
