"""The one list of personal columns, read from `columns.yaml`."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import yaml

from stripe_platform.errors import StripePlatformError
from stripe_platform.oltp.tables import SCHEMA, TABLES_BY_NAME

_NAME = re.compile(r"[a-z_][a-z0-9_]*")


class InvalidPersonalColumns(StripePlatformError):
    """`columns.yaml` cannot be trusted as it stands, so nothing may flow."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"privacy/columns.yaml: {reason}; mend the file, then migrate again")


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a later key replace an earlier one: a table named twice would lose personal columns."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        names = [self.construct_object(key, deep=deep) for key, _ in node.value]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise InvalidPersonalColumns(f"{', '.join(sorted(map(str, repeated)))} is named twice")
        return super().construct_mapping(node, deep=deep)


def parse_personal_columns(text: str) -> Mapping[str, frozenset[str]]:
    """Read `table: {column: what it is}`; every name a plain identifier, every column described.

    Raises `InvalidPersonalColumns` for anything else, a primary key column or a table that is not captured.
    """
    try:
        document = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - it is a SafeLoader
    except yaml.YAMLError as error:
        raise InvalidPersonalColumns(f"is not YAML ({error.__class__.__name__})") from error
    if not isinstance(document, dict):
        raise InvalidPersonalColumns("must map tables to their personal columns")
    return MappingProxyType({table: _columns_of(table, columns) for table, columns in document.items()})


def _columns_of(table: object, columns: object) -> frozenset[str]:
    if not isinstance(table, str) or table not in TABLES_BY_NAME:
        raise InvalidPersonalColumns(f"{table!r} is not a captured table")
    if not isinstance(columns, dict) or not columns:
        raise InvalidPersonalColumns(f"{table} must map its personal columns to what they are")
    for column, meaning in columns.items():
        if not isinstance(column, str) or not _NAME.fullmatch(column):
            raise InvalidPersonalColumns(f"{table} has {column!r}, which is not a column name")
        if not isinstance(meaning, str) or not meaning.strip():
            raise InvalidPersonalColumns(f"{table}.{column} must say what it is")
        if column in TABLES_BY_NAME[table].key:
            raise InvalidPersonalColumns(
                f"{table}.{column} is in the primary key, without which no change can be followed: "
                "use a key that says nothing about a person"
            )
    return frozenset(columns)


@cache
def personal_columns() -> Mapping[str, frozenset[str]]:
    """The personal columns of each captured table that has any."""
    return parse_personal_columns((files(__package__) / "columns.yaml").read_text("utf-8"))


def column_exclude_list() -> str:
    """The same list as Debezium's `column.exclude.list`: `schema.table.column`, comma separated, in one order."""
    return ",".join(
        f"{SCHEMA}.{table}.{column}"
        for table, columns in sorted(personal_columns().items())
        for column in sorted(columns)
    )
