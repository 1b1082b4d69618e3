"""The time line of features: integer microseconds since 1970 in UTC, cut into days and slots."""

from collections.abc import Iterable
from dataclasses import dataclass

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
# What of a window fills no slot is read row by row, so a slot is short; a day holds 144 of them at most.
SLOT = 10 * MINUTE


@dataclass(frozen=True, slots=True)
class AsOf:
    """A place in the order of payments, which is (created, id).

    Seen from there is every payment before it. With `id` None, every payment of its microsecond is seen too.
    """

    created: int
    id: str | None = None

    def sees(self, created: int, identity: str) -> bool:
        """Whether the payment with this time and id comes before this place."""
        if created == self.created:
            return self.id is None or identity < self.id
        return created < self.created


@dataclass(frozen=True, slots=True)
class Window:
    """The times (t - delay - length, t - delay]: its older end is outside, its newer end is inside."""

    name: str
    length: int
    delay: int = 0

    def bounds(self, moment: int) -> tuple[int, int]:
        """The ends of the window at the time `moment`: the older and the newer."""
        newer = moment - self.delay
        return newer - self.length, newer


def cuts(windows: Iterable[Window], moment: int) -> tuple[int, ...]:
    """The ends of all these windows, each once, oldest first."""
    return tuple(sorted({end for window in windows for end in window.bounds(moment)}))


def merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same times in as few ranges as can be, oldest first; both ends of a range are inside."""
    apart: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if apart and begin <= apart[-1][1] + 1:
            apart[-1] = (apart[-1][0], max(apart[-1][1], end))
        else:
            apart.append((begin, end))
    return tuple(apart)


def day_of(moment: int) -> int:
    """Days since 1970 of the UTC day that holds the moment."""
    return moment // DAY


def slot_of(moment: int) -> int:
    """The first microsecond of the slot that holds the moment."""
    return moment - moment % SLOT


def slot_name(moment: int) -> str:
    """`08:30`: the UTC time at which the slot of the moment begins; names of one day sort as their times do."""
    minutes = moment % DAY // SLOT * (SLOT // MINUTE)
    return f"{minutes // 60:02}:{minutes % 60:02}"
