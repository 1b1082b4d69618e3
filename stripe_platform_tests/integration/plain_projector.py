"""The plainest projector: one document a row, behind the guard; a module that is a `features.projection.Projector`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bson
from pymongo import ReplaceOne
from pymongo.client_session import ClientSession

from stripe_platform.features.changes import Change
from stripe_platform.features.projection import Documents, Unprojectable
from stripe_platform.oltp.tables import TABLES_BY_NAME

read_first = ()

LARGEST_DOCUMENT = 16 * 1024 * 1024


@dataclass(frozen=True)
class Counted:
    applied: int
    stale: int
    documents: int
    written: Mapping[str, int]


def project(session: ClientSession, documents: Documents, changes: Sequence[Change], /) -> Counted:
    stale = 0
    written: dict[tuple[str, str], dict[str, Any]] = {}
    for table in {change.table for change in changes}:
        mine = [change for change in changes if change.table == table]
        ids = list({_id(change) for change in mine})
        held = {row["_id"]: row for row in documents[table].find({"_id": {"$in": ids}}, session=session)}
        for change in mine:
            row = held.get(_id(change))
            if row is not None and _is_stale(row, change):
                stale += 1
                continue
            written[table, _id(change)] = held[_id(change)] = _document(change, row)
        writes = [ReplaceOne({"_id": id}, row, upsert=True) for (name, id), row in written.items() if name == table]
        if writes:
            documents[table].bulk_write(writes, ordered=False, session=session)
    return Counted(len(changes) - stale, stale, len(written), Counter(table for table, _ in written))


def ahead(documents: Documents, changes: Sequence[Change], /) -> Iterable[list[str]]:
    """One slice for every row that asks for it."""
    for change in changes:
        if (change.row.get("metadata") or {}).get("refresh"):
            yield [change.row["metadata"]["refresh"]]


def refresh(session: ClientSession, documents: Documents, changes: Sequence[Change], ids: list[str], /) -> int:
    for id in ids:
        documents["refreshed"].replace_one({"_id": id}, {"_id": id}, upsert=True, session=session)
    return len(ids)


def _id(change: Change) -> str:
    return "/".join(str(change.row[name]) for name in TABLES_BY_NAME[change.table].key)


def _is_stale(row: dict[str, Any], change: Change) -> bool:
    is_older = change.lsn is not None and row["lsn"] is not None and change.lsn < row["lsn"]
    return bool(change.offset <= row["offset"] or is_older)


def _document(change: Change, before: dict[str, Any] | None) -> dict[str, Any]:
    row = dict(change.row)
    for name in change.unchanged:
        row[name] = before["row"][name] if before else None
    if (row.get("metadata") or {}).get("refuse"):
        raise Unprojectable((change, "it asks to be refused"))
    lsns = [lsn for lsn in (change.lsn, before["lsn"] if before else None) if lsn is not None]
    document = {
        "_id": _id(change),
        "row": row,
        "offset": change.offset,
        "lsn": max(lsns, default=None),
        "deleted": change.op == "d",
    }
    if len(bson.encode(document)) > LARGEST_DOCUMENT:
        raise Unprojectable((change, "its document is too large"))
    return document
