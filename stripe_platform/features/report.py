"""What a drain into the document store did."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from stripe_platform.cdc.report import DrainReport
from stripe_platform.features.hold import Held


@dataclass(frozen=True)
class DocumentsReport(DrainReport):
    """As `DrainReport`, where `rows` are changes taken; of these some are stale by the guard and change nothing.

    `documents` were written; `dead_letters` records were put aside, or were found again that had been. `written` is
    {collection: documents}, features among them, of those that changed.
    `held` says why the drain gave way before it was done, if it did.
    """

    applied: int
    stale: int
    documents: int
    dead_letters: int
    written: Mapping[str, int]
    held: Held | None = None

    def then(self, later: Self) -> Self:
        """This drain and a later one of the same tables, taken together."""
        return replace(
            super().then(later),
            applied=self.applied + later.applied,
            stale=self.stale + later.stale,
            documents=self.documents + later.documents,
            dead_letters=self.dead_letters + later.dead_letters,
            written=Counter(self.written) + Counter(later.written),
        )
