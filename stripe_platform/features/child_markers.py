"""Delete markers of children by the child alone: a delete names no charge, and there may be none that has the child."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from pymongo.client_session import ClientSession

from stripe_platform.features.changes import Change
from stripe_platform.features.charges import CHILDREN, Charge
from stripe_platform.features.connection import Documents
from stripe_platform.features.parents import COLLECTION, SourceRow, row_id
from stripe_platform.features.projection import Unprojectable
from stripe_platform.features.reading import find_raw
from stripe_platform.features.writing import Write


class ChildMarkers:
    """The markers of a batch's children in `source_rows`; every delete of a child leaves one.

    So a child that no charge has known stays deleted when a dead letter brings it, and a delete that is read again
    is known although it no longer finds its charge.
    """

    def __init__(self, session: ClientSession, documents: Documents) -> None:
        self._session, self._documents = session, documents
        self._rows: dict[str, SourceRow] = {}

    def load(self, keyed: Sequence[tuple[str | None, Change]], charges: Mapping[str, Charge]) -> None:
        """Read the markers of the children that are deleted or that their charges do not hold, if there are any."""
        ids = {
            row_id(change.table, change.row["id"])
            for id_, change in keyed
            if change.table in CHILDREN and (id_ is None or change.op == "d" or not charges[id_].holds(change))
        }
        if not ids:
            return
        self._rows = {id_: SourceRow(id_, None) for id_ in ids}
        for found in find_raw(self._session, self._documents, COLLECTION, {"_id": {"$in": list(ids)}}):
            self._rows[found["_id"]] = SourceRow(found["_id"], found)

    def take(self, change: Change, charge: Charge | None) -> bool:
        """Apply a child's change to the charge that has it (None: no charge) and to its marker; False when stale."""
        if charge is None and change.op != "d":
            raise Unprojectable((change, "it names no charge"))
        marker = self._rows.get(row_id(change.table, change.row["id"]))
        if charge is not None and not charge.take(change, None if marker is None else marker.position):
            return False
        if change.op != "d":
            return True
        assert marker is not None, change.table  # noqa: S101 - the markers of deletes have been loaded
        return marker.take(change) or charge is not None

    def writes(self, now: datetime) -> list[Write]:
        """What is to be stored of the markers."""
        return [row.write(now) for row in self._rows.values() if row.last is not None]
