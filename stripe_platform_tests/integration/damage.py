"""What is wrong with a build, and how to make it so."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """What is wrong, the SQL that makes it so, and patterns of the names of the tests that must then fail."""

    what: str
    sql: str
    fails: tuple[str, ...]


def null_row(relation: str, *others: str) -> Damage:
    table = relation.split(".")[1]
    return Damage(
        f"a row without values in {table}",
        f"insert into {relation} default values",
        (f"not_null_{table}_*", *others),
    )


def doubled(relation: str, condition: str, *fails: str) -> Damage:
    return Damage(
        f"a row of {relation.split('.')[1]} twice",
        f"insert into {relation} select * from {relation} where {condition} limit 1",
        fails,
    )


def mart(name: str, change: str, *fails: str, schema: str = "marts") -> Damage:
    return Damage(f"a row of {name} with {change}", f"update {schema}.{name} set {change}", fails)
