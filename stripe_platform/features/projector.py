"""Changes of rows into documents, inside a transaction that its caller begins and commits."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pymongo.client_session import ClientSession

from stripe_platform.features import charges, entities, fan_out, parents
from stripe_platform.features.batch import ChargeBatch, TileWriter
from stripe_platform.features.changes import Change
from stripe_platform.features.connection import Documents
from stripe_platform.features.entities import Entity, entity_id_of
from stripe_platform.features.exchange import Rates
from stripe_platform.features.parents import Parents
from stripe_platform.features.projection import Unprojectable, take_all
from stripe_platform.features.reading import find_raw
from stripe_platform.features.writing import write_all

# The captured tables that have a place in the documents.
TABLES = (*parents.KEYS, *charges.TABLES, *entities.TABLES)

_TRUNCATED = "the table was truncated, which says nothing of its rows"

# Of a batch with many charges to compose anew, so many in a transaction.
SLICE = 2_000


@dataclass(frozen=True)
class Projected:
    """What a batch came to: changes applied and stale, documents written; `written` is by collection, with tiles."""

    applied: int
    stale: int
    documents: int
    written: Mapping[str, int] = field(default_factory=dict, compare=False)


def project(
    session: ClientSession, documents: Documents, changes: Sequence[Change], features: TileWriter | None = None
) -> Projected:
    """Apply the changes, those of a partition in offset order, within the session's running transaction.

    Nothing is written for a stale change, so that a replay changes no document. `Unprojectable` for
    changes that cannot become documents: the transaction has to be aborted, and the others projected
    without them. Where the changes touch rows that many charges embed, `ahead` keeps the transaction small.
    """
    now = datetime.now(UTC)
    of_parents, of_charges, of_entities = _sorted_out(changes)
    known = Parents(session, documents)
    known.take(of_parents)
    batch = ChargeBatch(session, documents, known, now)
    batch.take(of_charges)
    if known.changed:
        for condition in (*fan_out.of_intents(known), *fan_out.of_shared_rows(known, batch.rates)):
            batch.compose_again(condition)
    written, stale = _project_entities(session, documents, of_entities, now)
    rows = [*known.writes(now), *batch.markers.writes(now)]
    written[parents.COLLECTION] += len(write_all(session, documents, parents.COLLECTION, rows))
    of_batch = batch.write(features)
    stored = written.total() + of_batch[charges.COLLECTION]
    stale += known.stale + batch.stale
    return Projected(applied=len(changes) - stale, stale=stale, documents=stored, written=written + of_batch)


def ahead(documents: Documents, changes: Sequence[Change]) -> Iterator[list[str]]:
    """The charges to `refresh` before the changes are projected, in slices for transactions of their own.

    Nothing when they are few enough for the batch's own transaction. These transactions leave the offsets alone: after
    a crash between two of them the changes come again, and what is written already is found no more. They must be
    fenced as the batch itself.
    """
    shared = [change for change in changes if change.table in parents.KEYS and change.table != "payment_intents"]
    if not shared:
        return
    known = Parents(None, documents)
    known.take(shared)
    ids: list[str] = []
    is_many = False
    for condition in fan_out.of_shared_rows(known, Rates(None, documents, known)):
        for found in documents[charges.COLLECTION].find(condition, {"_id": 1}, batch_size=SLICE):
            if len(ids) == SLICE:
                yield ids
                ids, is_many = [], True
            ids.append(found["_id"])
    if is_many:
        yield ids


def refresh(
    session: ClientSession,
    documents: Documents,
    changes: Sequence[Change],
    ids: Sequence[str],
    features: TileWriter | None = None,
) -> int:
    """Compose a slice of `ahead` as the changes will leave it, within the running transaction; documents written."""
    known = Parents(session, documents)
    known.take([change for change in changes if change.table in parents.KEYS])
    batch = ChargeBatch(session, documents, known, datetime.now(UTC))
    batch.compose_again({"_id": {"$in": list(ids)}})
    return batch.write(features)[charges.COLLECTION]


def _sorted_out(changes: Sequence[Change]) -> tuple[list[Change], list[Change], list[Change]]:
    """The changes of source rows, of charges with what belongs to them, and of documents of one row."""
    places: dict[str, list[Change]] = {}
    kinds: tuple[list[Change], list[Change], list[Change]] = [], [], []
    for kind, tables in zip(kinds, (parents.KEYS, charges.TABLES, entities.TABLES), strict=True):
        places |= dict.fromkeys(tables, kind)
    if truncates := [change for change in changes if change.op == "t"]:
        raise Unprojectable(*((change, _TRUNCATED) for change in truncates))
    for change in changes:
        places[change.table].append(change)
    return kinds


def _project_entities(
    session: ClientSession, documents: Documents, changes: Sequence[Change], now: datetime
) -> tuple[Counter[str], int]:
    """Documents written by collection and changes found stale, of tables whose rows are documents of their own."""
    written, stale = Counter[str](), 0
    for table in entities.TABLES:
        keyed = [(entity_id_of(change), change) for change in changes if change.table == table]
        if not keyed:
            continue
        held = {id_: Entity(table, id_, None) for id_, _ in keyed}
        for found in find_raw(session, documents, table, {"_id": {"$in": list(held)}}):
            held[found["_id"]] = Entity(table, found["_id"], found)
        stale += take_all((held[id_].take, change) for id_, change in keyed)
        writes = [entity.write(now) for entity in held.values() if entity.last is not None]
        written[table] += len(write_all(session, documents, table, writes))
    return written, stale
