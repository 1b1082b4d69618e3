"""People and shops that change while a live run goes on: updates, customers who leave or move, addresses deleted."""

import random

import psycopg
from uuid_utils.compat import uuid7

from stripe_platform.oltp.simulator.live_rows import Moment, Overtaken, changed_one, insert
from stripe_platform.oltp.simulator.live_steps import Found
from stripe_platform.oltp.simulator.roster import Roster


def find_customer(connection: psycopg.Connection, chance: random.Random, roster: Roster) -> Found | None:
    """Any customer."""
    return (chance.choice(roster.payers).customer_id,)


def change_customer(connection: psycopg.Connection, chance: random.Random, moment: Moment, found: Found) -> None:
    """A customer has another telephone."""
    changed = connection.execute(
        "UPDATE payments.customers SET phone = %s WHERE id = %s AND deleted_at IS NULL",
        [f"+120255501{chance.randint(0, 99):02}", found[0]],
    )
    changed_one(changed)
    insert(connection, "events", moment.witness("customer.updated", "customer", found[0], None))


def find_leaver(connection: psycopg.Connection, chance: random.Random, roster: Roster) -> Found | None:
    """A customer who pays no more."""
    return (chance.choice(roster.leavers).customer_id,) if roster.leavers else None


def leave(connection: psycopg.Connection, chance: random.Random, moment: Moment, found: Found) -> None:
    """A customer without a subscription leaves: marked, not removed."""
    left = connection.execute(
        "UPDATE payments.customers AS customer SET deleted_at = %s WHERE id = %s AND deleted_at IS NULL "
        "AND NOT EXISTS (SELECT FROM payments.subscriptions WHERE customer_id = customer.id)",
        [moment.at, found[0]],
    )
    changed_one(left)
    insert(connection, "events", moment.witness("customer.deleted", "customer", found[0], None))


def move(connection: psycopg.Connection, chance: random.Random, moment: Moment, found: Found) -> None:
    """A customer moves: the old addresses are deleted, a new one is written."""
    gone = connection.execute(
        "DELETE FROM payments.addresses WHERE customer_id = %s RETURNING country", found
    ).fetchall()
    if not gone:
        raise Overtaken
    address = {
        "id": uuid7(),
        "customer_id": found[0],
        "kind": "billing",
        "line1": f"{chance.randint(1, 180)} Example Street",
        "city": "Sampleton",
        "postal_code": f"{chance.randint(0, 99_999):05}",
        "country": gone[0][0],
        "created": moment.at,
    }
    insert(connection, "addresses", address)
    insert(connection, "events", moment.witness("customer.updated", "customer", found[0], None))


def change_merchant(connection: psycopg.Connection, chance: random.Random, moment: Moment, found: Found) -> None:
    """A merchant writes something else on the statement."""
    changed = connection.execute(
        "UPDATE payments.merchants SET statement_descriptor = %s WHERE id = %s",
        [f"SHOP {chance.randint(0, 9_999):04}", found[0]],
    )
    changed_one(changed)
    insert(connection, "events", moment.witness("account.updated", "account", found[0], found[0]))
