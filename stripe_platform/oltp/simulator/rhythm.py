"""When payments are made: by hour and weekday, where the merchant is, and more of them every day."""

import numpy as np

from stripe_platform.oltp.simulator.catalogue import CATEGORIES, COUNTRIES, hour_weights
from stripe_platform.oltp.simulator.run import DAY, HOUR, MINUTE, Draws, Floats, Ints, Run

LAST_TRIES = 30 * MINUTE
"""No payment begins so shortly before the end: its tries would come after it."""

_GROWTH = 0.5
_OFFSETS = np.array([country.offset for country in COUNTRIES]) * HOUR


def moments(run: Run, draws: Draws, category: Ints, country: Ints) -> Ints:
    """A moment of the run for a payment at each merchant's category and country."""
    at = np.zeros(len(category), dtype=np.int64)
    for number, known in enumerate(CATEGORIES):
        mine = np.flatnonzero(category == number)
        day = draws.pick(_day_weights(run, known.weekend), len(mine))
        hour = draws.pick(hour_weights(known), len(mine))
        at[mine] = day * DAY + hour * HOUR + draws.between(0, HOUR, len(mine)) - _OFFSETS[country[mine]]
    # Hours that the clock of another country puts outside the run come in again at its other end.
    return run.start + at % (run.days * DAY - LAST_TRIES)


def _day_weights(run: Run, weekend: float) -> Floats:
    day = np.arange(run.days)
    # 1970-01-01 was a Thursday, three days after a Monday.
    weekday = (run.start // DAY + day + 3) % 7
    grown: Floats = (1 + _GROWTH * day / run.days) * np.where(weekday >= 5, weekend, 1.0)
    return grown
