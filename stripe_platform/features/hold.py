"""Holding the store: while one builds collections anew, no other writer changes anything.

The hold is a part of the sink's one document. A writer that meets one gives way. It ends with the block that took it,
or within `LIFE` after a kill; then the next writer takes it over and brings to an end what was left: before the
decision (`Hold.decide`) the collections beside are dropped, after it they are put in place. So a holder that stood
still for long finds either its hold, or nothing that it could put in anyone's way.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from pymongo.errors import PyMongoError

from stripe_platform.errors import StripePlatformError
from stripe_platform.features import shadow
from stripe_platform.features.projection import Documents

COLLECTION = "sink"
ID = "mongodb"

LIFE = timedelta(seconds=45)
EXTENDED_EVERY = timedelta(seconds=10)

_IS_FREE: Mapping[str, Any] = {"_id": ID, "hold": {"$exists": False}}


class Held(StripePlatformError):
    """Collections are being built anew: no other writer goes on before that has ended."""

    def __init__(self, of: Sequence[str], until: datetime) -> None:
        super().__init__(
            f"MongoDB's documents stand still while {', '.join(of)} are built anew, until {until:%H:%M:%S} UTC or "
            "longer: changes wait in their topics; run it again then"
        )


class HoldLost(StripePlatformError):
    """The holder was away for so long that others went on."""

    def __init__(self, of: Sequence[str]) -> None:
        super().__init__(
            f"building {', '.join(of)} anew stood still for more than {LIFE.total_seconds():.0f} s, and others went "
            f"on; nothing was changed: run `stripe-platform rebuild {' '.join(of)}` again"
        )


class Hold:
    """A hold that was taken; `shadow` names the collections that are built beside those in place."""

    def __init__(self, documents: Documents, of: Sequence[str]) -> None:
        self._documents, self._of = documents, list(of)
        self._by = self.shadow = uuid4().hex[:8]

    def take(self) -> None:
        """`Held` when another has it; one that has expired is brought to its end first."""
        hold = {"by": self._by, "of": self._of, "shadow": self.shadow, "until": _end()}
        # Others find the version that they read no more, wherever they are.
        change = {"$set": {"hold": hold}, "$inc": {"version": 1}}
        while not self._documents[COLLECTION].update_one(_IS_FREE, change).matched_count:
            give_way(self._documents)

    def extend(self, ended: Event) -> None:
        """Keep the hold until the event is set."""
        while not ended.wait(EXTENDED_EVERY.total_seconds()):
            try:
                self._documents[COLLECTION].update_one(self._mine, {"$set": {"hold.until": _end()}})
            except PyMongoError:
                # Tried again; whether it came too late is seen when it is decided.
                continue

    def decide(self, collections: Sequence[str], sets: Mapping[str, Any]) -> None:
        """From here on the collections beside will be in place, and the sink's document says `sets` ({path: value}).

        `HoldLost`, and nothing is changed, when the hold has been taken over.
        """
        swap = {"collections": list(collections), "sets": [[path, value] for path, value in sets.items()]}
        mine = {**self._mine, "hold.is_given_up": {"$exists": False}}
        found = self._documents[COLLECTION].update_one(mine, {"$set": {"hold.swap": swap, "hold.until": _end()}})
        if not found.matched_count:
            raise HoldLost(self._of)

    def finish(self) -> None:
        """Put in place what was decided and end the hold; harmless when another has done it."""
        found = self._documents[COLLECTION].find_one(self._mine)
        if found is not None:
            _finish(self._documents, found["hold"])

    def give_up(self) -> None:
        """End a hold under which nothing was decided; one that is decided is left to be finished.

        The server is asked: a decision whose answer was lost may have been stored, and none must be stored from now on.
        """
        undecided = {**self._mine, "hold.swap": {"$exists": False}}
        if self._documents[COLLECTION].update_one(undecided, {"$set": {"hold.is_given_up": True}}).matched_count:
            _drop(self._documents, self._by, self.shadow)

    @property
    def _mine(self) -> Mapping[str, Any]:
        return {"_id": ID, "hold.by": self._by}


@contextmanager
def holding(documents: Documents, of: Sequence[str]) -> Iterator[Hold]:
    """The hold for these collections, kept for as long as the block runs; the sink's document exists.

    `Held` when another has one. A block that ends before `Hold.decide` leaves everything as it was.
    """
    hold, ended = Hold(documents, of), Event()
    hold.take()
    keeper = Thread(target=hold.extend, args=[ended], name="hold", daemon=True)
    keeper.start()
    try:
        yield hold
    finally:
        ended.set()
        keeper.join()
        hold.give_up()


def give_way(documents: Documents) -> None:
    """`Held` while there is a hold; what one that has expired left behind is brought to its end first."""
    found = documents[COLLECTION].find_one({"_id": ID}, {"hold": 1})
    if found is None or "hold" not in found:
        return
    hold = found["hold"]
    # Not every client reads times with a zone.
    until = hold["until"].replace(tzinfo=UTC)
    if until > datetime.now(UTC):
        raise Held(hold["of"], until)
    hold |= {"by": uuid4().hex[:8]}
    taken = documents[COLLECTION].update_one(
        {"_id": ID, "hold.shadow": hold["shadow"], "hold.until": hold["until"]},
        {"$set": {"hold.by": hold["by"], "hold.until": _end()}},
    )
    if not taken.matched_count:
        raise Held(hold["of"], _end())
    if "swap" in hold:
        _finish(documents, hold)
    else:
        _drop(documents, hold["by"], hold["shadow"])


def _finish(documents: Documents, hold: Mapping[str, Any]) -> None:
    shadow.put_in_place(documents, hold["swap"]["collections"], hold["shadow"])
    shadow.drop(documents, hold["shadow"])
    _release(documents, hold["by"], dict(hold["swap"]["sets"]))


def _drop(documents: Documents, by: str, suffix: str) -> None:
    # In this order: one whose hold was taken over must not find its collections when others go on.
    shadow.drop(documents, suffix)
    _release(documents, by, {})


def _release(documents: Documents, by: str, sets: Mapping[str, Any]) -> None:
    change: dict[str, Any] = {"$unset": {"hold": ""}, "$inc": {"version": 1}}
    if sets:
        change["$set"] = sets
    documents[COLLECTION].update_one({"_id": ID, "hold.by": by}, change)


def _end() -> datetime:
    return datetime.now(UTC) + LIFE
