"""What Debezium may see and do: the role `cdc`, its grants, and the publication, all derived from the catalog."""

from collections.abc import Iterable, Mapping

import psycopg
from psycopg import sql

from stripe_platform.oltp.catalog import Column, all_columns, captured_columns, without_personal
from stripe_platform.oltp.tables import SCHEMA
from stripe_platform.privacy.columns import personal_columns
from stripe_platform.settings import Settings

PUBLICATION = "stripe_platform"
CDC_ROLE = "cdc"
# Where the connector is asked for snapshots, and where it marks the bounds of their chunks itself.
SIGNALS_SCHEMA = "cdc"
SIGNALS_TABLE = "signals"

# By schema and name; without columns: the whole table.
_Published = dict[tuple[str, str], tuple[str, ...]]
_SIGNALS = (SIGNALS_SCHEMA, SIGNALS_TABLE)


def ensure_replication(connection: psycopg.Connection, settings: Settings) -> bool:
    """Create or mend role, grants and publication, in one transaction; True when anything had to change.

    Raises `TableMissing` or `InvalidPersonalColumns` before it touches anything. The password goes to the
    server as a SCRAM verifier, so that no log of statements holds it.
    """
    with connection.transaction():
        wanted = _published(connection, captured_columns(connection))
        _record_unpublished(connection, wanted, published_tables(connection))
        changed = [
            _ensure_role(connection, settings),
            # Before the grants: it waits for autovacuum to leave the tables, which itself waits for whoever has
            # granted on them.
            _ensure_publication(connection, wanted),
            _ensure_grants(connection, wanted),
        ]
    return any(changed)


def record_holes(connection: psycopg.Connection, tables: Iterable[str], cause: str) -> None:
    """Record, in the caller's transaction, that changes of these tables may never have come to Kafka.

    Of tables that were never taken there is nothing to lose.
    """
    # Numbers are given before a transaction commits: nobody else's may become visible in between.
    connection.execute("LOCK TABLE cdc.holes IN SHARE ROW EXCLUSIVE MODE")
    connection.execute(
        "INSERT INTO cdc.holes (table_name, cause) "
        "SELECT DISTINCT table_name, %s FROM cdc.snapshots WHERE table_name = ANY(%s)",
        [cause, list(tables)],
    )


def published_tables(connection: psycopg.Connection) -> frozenset[str]:
    """The tables of the payments schema whose every change is published, as this transaction sees it."""
    rows = connection.execute(
        "SELECT relation.relname FROM pg_publication_rel AS member "
        "INNER JOIN pg_publication AS publication ON publication.oid = member.prpubid "
        "INNER JOIN pg_class AS relation ON relation.oid = member.prrelid "
        "WHERE pubname = %s AND relation.relnamespace::regnamespace::text = %s "
        "AND pubinsert AND pubupdate AND pubdelete AND pubtruncate",
        [PUBLICATION, SCHEMA],
    )
    return frozenset(name for (name,) in rows)


def refresh_replication(connection: psycopg.Connection, published_before: frozenset[str]) -> None:
    """Bring grants and publication, where they exist, in line with the tables as they are now.

    For use inside a migration's transaction; tables that a later migration makes may still be missing. A table that was
    published before it may be out of the publication by now: nothing is lost unless the migration changed its rows.
    """
    exist = connection.execute(
        "SELECT FROM pg_publication CROSS JOIN pg_roles WHERE pubname = %s AND rolname = %s",
        [PUBLICATION, CDC_ROLE],
    ).fetchone()
    if exist is not None:
        wanted = _published(connection, without_personal(all_columns(connection), personal_columns()))
        taken_out = {name for _, name in wanted} & published_before - published_tables(connection)
        changed = {table for table in taken_out if _has_changed_rows(connection, table)}
        _record_unpublished(connection, wanted, published_before - changed)
        _ensure_publication(connection, wanted)
        _ensure_grants(connection, wanted)


def _record_unpublished(connection: psycopg.Connection, wanted: _Published, published: frozenset[str]) -> None:
    """Record holes of the tables that are to be published and were not all the time."""
    # Not yet there while earlier migrations are applied.
    has_holes = connection.execute("SELECT to_regclass('cdc.holes')").fetchone() != (None,)
    missing = {name for schema, name in wanted if schema == SCHEMA} - published
    if has_holes and missing:
        record_holes(connection, missing, "it was out of the publication")


def _has_changed_rows(connection: psycopg.Connection, table: str) -> bool:
    """Whether this transaction has, provided that no count of an earlier one was left when it began."""
    row = connection.execute(
        # The tree of a table that has no partitions is empty.
        "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) > 0 FROM pg_stat_xact_user_tables "
        "WHERE relid = %(table)s::regclass OR relid IN (SELECT tree.relid FROM pg_partition_tree(%(table)s) AS tree)",
        {"table": f"{SCHEMA}.{table}"},
    ).fetchone()
    return row == (True,)


def _published(connection: psycopg.Connection, columns: Mapping[str, tuple[Column, ...]]) -> _Published:
    wanted: _Published = {(SCHEMA, table): tuple(column.name for column in listed) for table, listed in columns.items()}
    # Not yet there while the earliest migrations are applied.
    has_signals = connection.execute("SELECT to_regclass(%s)", [".".join(_SIGNALS)]).fetchone() != (None,)
    return wanted | ({_SIGNALS: ()} if has_signals else {})


def _ensure_role(connection: psycopg.Connection, settings: Settings) -> bool:
    attributes = connection.execute(
        "SELECT rolcanlogin, rolreplication, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls "
        "FROM pg_roles WHERE rolname = %s",
        [CDC_ROLE],
    ).fetchone()
    as_wanted = attributes == (True, True, False, False, False, False)
    if as_wanted and _can_log_in(settings):
        return False
    verifier = connection.pgconn.encrypt_password(
        settings.secret("cdc_password").encode(), CDC_ROLE.encode(), b"scram-sha-256"
    )
    verb = sql.SQL("CREATE" if attributes is None else "ALTER")
    connection.execute(
        sql.SQL("{} ROLE {} LOGIN REPLICATION NOSUPERUSER NOCREATEROLE NOCREATEDB NOBYPASSRLS PASSWORD {}").format(
            verb, sql.Identifier(CDC_ROLE), sql.Literal(verifier.decode())
        )
    )
    return True


def _can_log_in(settings: Settings) -> bool:
    try:
        psycopg.connect(settings.postgres_conninfo, user=CDC_ROLE, password=settings.secret("cdc_password")).close()
    except psycopg.OperationalError:
        return False
    return True


# Rights on whole relations of this database, and rights on single columns.
_RELATION_GRANTS = """
SELECT relation.relnamespace::regnamespace::text, relation.relname, privilege.privilege_type
FROM pg_class AS relation
CROSS JOIN LATERAL aclexplode(relation.relacl) AS privilege
WHERE privilege.grantee = %s::regrole
"""
_COLUMN_GRANTS = """
SELECT
    relation.relnamespace::regnamespace::text,
    relation.relname,
    array_agg(attribute.attname::text ORDER BY attribute.attnum)
FROM pg_class AS relation
INNER JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
CROSS JOIN LATERAL aclexplode(attribute.attacl) AS privilege
WHERE privilege.grantee = %s::regrole AND privilege.privilege_type = 'SELECT'
    AND relation.relnamespace::regnamespace::text = ANY(%s) AND NOT attribute.attisdropped
GROUP BY 1, 2
"""
_OTHER_COLUMN_GRANTS = """
SELECT
FROM pg_attribute AS attribute
CROSS JOIN LATERAL aclexplode(attribute.attacl) AS privilege
WHERE privilege.grantee = %s::regrole AND privilege.privilege_type <> 'SELECT'
LIMIT 1
"""
_SCHEMA_GRANTS = """
SELECT nspname, privilege_type FROM pg_namespace CROSS JOIN LATERAL aclexplode(nspacl)
WHERE nspname = ANY(%s) AND grantee = %s::regrole
"""

# The connector opens a chunk by an insert and closes it by a delete, which finds the row by its id.
_SIGNAL_RIGHTS = frozenset({(*_SIGNALS, "INSERT"), (*_SIGNALS, "DELETE")})
_SIGNAL_COLUMNS = ("id",)


def _ensure_grants(connection: psycopg.Connection, wanted: _Published) -> bool:
    readable = wanted | ({_SIGNALS: _SIGNAL_COLUMNS} if _SIGNALS in wanted else {})
    if _grants_are(connection, readable):
        return False
    role = sql.Identifier(CDC_ROLE)
    for name in _schemas(readable):
        schema = sql.Identifier(name)
        connection.execute(sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM {}").format(schema, role))
        connection.execute(sql.SQL("REVOKE ALL ON SCHEMA {} FROM {}").format(schema, role))
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, role))
    for table, columns in readable.items():
        connection.execute(
            sql.SQL("GRANT SELECT ({}) ON {} TO {}").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(*table), role
            )
        )
    if _SIGNALS in readable:
        connection.execute(sql.SQL("GRANT INSERT, DELETE ON {} TO {}").format(sql.Identifier(*_SIGNALS), role))
    return True


def _schemas(tables: _Published) -> list[str]:
    return sorted({schema for schema, _ in tables})


def _grants_are(connection: psycopg.Connection, readable: _Published) -> bool:
    schemas = _schemas(readable)
    on_schemas = set(connection.execute(_SCHEMA_GRANTS, [schemas, CDC_ROLE]))
    on_columns = {
        (schema, table): tuple(columns)
        for schema, table, columns in connection.execute(_COLUMN_GRANTS, [CDC_ROLE, schemas])
    }
    on_relations = set(connection.execute(_RELATION_GRANTS, [CDC_ROLE]))
    other = connection.execute(_OTHER_COLUMN_GRANTS, [CDC_ROLE]).fetchone()
    return (
        on_schemas == {(schema, "USAGE") for schema in schemas}
        and on_columns == readable
        and on_relations == (_SIGNAL_RIGHTS if _SIGNALS in readable else set())
        and other is None
    )


_PUBLISHED = """
SELECT
    relation.relnamespace::regnamespace::text,
    relation.relname,
    (
        SELECT array_agg(attribute.attname::text ORDER BY attribute.attnum) FROM pg_attribute AS attribute
        WHERE attribute.attrelid = relation.oid AND attribute.attnum = ANY(member.prattrs)
    )
FROM pg_publication_rel AS member
INNER JOIN pg_publication AS publication ON publication.oid = member.prpubid
INNER JOIN pg_class AS relation ON relation.oid = member.prrelid
WHERE publication.pubname = %s
"""


def _ensure_publication(connection: psycopg.Connection, wanted: _Published) -> bool:
    name = sql.Identifier(PUBLICATION)
    options = connection.execute(
        "SELECT pubviaroot AND pubinsert AND pubupdate AND pubdelete AND pubtruncate FROM pg_publication "
        "WHERE pubname = %s",
        [PUBLICATION],
    ).fetchone()
    tables = sql.SQL(", ").join(_member(table, columns) for table, columns in wanted.items())
    published_by = sql.SQL("publish = 'insert, update, delete, truncate', publish_via_partition_root = true")
    if options is None:
        connection.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH ({})").format(name, tables, published_by))
        return True
    changed = False
    if options == (False,):
        connection.execute(sql.SQL("ALTER PUBLICATION {} SET ({})").format(name, published_by))
        changed = True
    published = {
        (schema, table): tuple(columns or ())
        for schema, table, columns in connection.execute(_PUBLISHED, [PUBLICATION])
    }
    if published != wanted:
        connection.execute(sql.SQL("ALTER PUBLICATION {} SET TABLE {}").format(name, tables))
        changed = True
    return changed


def _member(table: tuple[str, str], columns: tuple[str, ...]) -> sql.Composable:
    if not columns:
        return sql.Identifier(*table)
    return sql.SQL("{} ({})").format(sql.Identifier(*table), sql.SQL(", ").join(map(sql.Identifier, columns)))
