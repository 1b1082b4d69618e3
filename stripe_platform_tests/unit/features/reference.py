"""The features said once more, plainly, over a list of payments; and random histories to compare with."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from stripe_platform.features.definitions import FEATURES, Aggregation, Feature
from stripe_platform.features.evaluation import Value
from stripe_platform.features.payments import Entity, Payment
from stripe_platform.features.windows import DAY, HOUR, SLOT, AsOf

Keys = Mapping[Entity, str | None]


def reference(history: Iterable[Payment], keys: Keys, as_of: AsOf, scored: Payment | None) -> dict[str, Value]:
    payments = list(history)
    return {feature.name: _plain(feature, payments, keys[feature.entity], as_of, scored) for feature in FEATURES}


def _plain(  # noqa: PLR0911
    feature: Feature, history: list[Payment], key: str | None, as_of: AsOf, scored: Payment | None
) -> Value:
    if key is None:
        return None
    t, end = as_of.created, as_of.created - feature.window.delay
    begin = end - feature.window.length
    of_entity = [p for p in history if p.key(feature.entity) == key]
    before = [p for p in of_entity if p.created < t or (p.created == t and (as_of.id is None or p.id < as_of.id))]
    earlier = [p for p in before if begin < p.created <= end]
    own = [scored] if scored and scored.key(feature.entity) == key and begin < scored.created <= end else []
    inside = earlier + own
    amounts = [p.amount for p in inside if p.amount is not None]
    match feature.aggregation:
        case Aggregation.PAYMENTS | Aggregation.LABELLED_PAYMENTS:
            return len(inside)
        case Aggregation.DECLINED:
            return sum(p.declined for p in earlier)
        case Aggregation.AMOUNT_SUM:
            return sum(amounts)
        case Aggregation.AMOUNT_MEAN:
            return float(sum(amounts)) / float(len(amounts)) if amounts else None
        case Aggregation.DISTINCT_MERCHANTS:
            return len({p.merchant for p in inside})
        case Aggregation.DISTINCT_CARDS:
            return len({p.card for p in inside} - {None})
        case Aggregation.SINCE_PREVIOUS:
            return min((t - p.created for p in earlier), default=None)
        case Aggregation.FRAUD_RATE:
            frauds = [p for p in earlier if p.fraud_known_at is not None and p.fraud_known_at <= t]
            return float(len(frauds)) / float(len(inside)) if inside else None


@dataclass(frozen=True)
class Scene:
    """Changes in order, (id, the payment afterwards or None), and a place to read the features from."""

    changes: list[tuple[str, Payment | None]]
    keys: Keys
    as_of: AsOf
    scored: Payment | None

    def steps(self) -> Iterator[tuple[Payment | None, Payment | None]]:
        """Every change as the payment before and after it."""
        held: dict[str, Payment | None] = {}
        for identity, after in self.changes:
            yield held.get(identity), after
            held[identity] = after

    @property
    def history(self) -> list[Payment]:
        """What there is after all changes."""
        return [payment for payment in dict(self.changes).values() if payment is not None]


def micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


# Midnights at the end of a leap day, of a year and of a month; the edge of a slot; anywhere.
MOMENTS = [
    micros(datetime(2028, 3, 1, tzinfo=UTC)),
    micros(datetime(2026, 1, 1, tzinfo=UTC)),
    micros(datetime(2026, 7, 31, 23, tzinfo=UTC)),
    micros(datetime(2026, 5, 17, 8, 40, tzinfo=UTC)),
    micros(datetime(2026, 5, 17, 8, 37, 12, 345678, tzinfo=UTC)),
]
ENDS = [0, HOUR, DAY, 7 * DAY, 8 * DAY, 14 * DAY, 30 * DAY, 37 * DAY]
NEAR = [-DAY, -SLOT, -1, 0, 0, 0, 1, SLOT - 1, SLOT, DAY]
IDS = [f"ch_{number:032x}" for number in range(8)]
AMOUNTS = st.sampled_from([None, -700, 0, 1, 999, 10**12]) | st.integers(-(10**6), 10**6)


@st.composite
def scenes(draw: st.DrawFn, prefix: str = "") -> Scene:
    """Histories of few payments, most of them at the ends of windows, slots and days, seen from a random place."""
    t = draw(st.sampled_from(MOMENTS)) + draw(st.sampled_from([-1, 0, 1]))
    ago = st.sampled_from(ENDS) | st.integers(0, 38 * DAY) | st.integers(0, 38 * 144).map(lambda n: n * SLOT)
    times = st.builds(lambda end, near: t - end + near, ago, st.sampled_from(NEAR))

    def states(identity: str, created: st.SearchStrategy[int]) -> st.SearchStrategy[Payment]:
        return st.builds(
            Payment,
            id=st.just(identity),
            created=created,
            merchant=st.sampled_from([f"{prefix}acct_1", f"{prefix}acct_2"]),
            customer=st.sampled_from([None, f"{prefix}cus_1", f"{prefix}cus_1", f"{prefix}cus_2"]),
            card=st.sampled_from([None, f"{prefix}card 1", f"{prefix}card 1", f"{prefix}card 2"]),
            amount=AMOUNTS,
            declined=st.booleans(),
            fraud_known_at=st.none() | times | st.sampled_from([t, t + 1, t + DAY]),
        )

    ids = [prefix + identity for identity in IDS]
    born = {identity: draw(times) for identity in ids}
    one = st.sampled_from(ids).flatmap(
        lambda identity: st.tuples(st.just(identity), st.none() | states(identity, st.just(born[identity])))
    )
    # Often at the microsecond of a payment that is there, for the ties.
    seen_at = draw(st.just(t) | st.sampled_from(sorted(born.values())))
    identity = draw(st.none() | st.sampled_from([*ids, f"{prefix}ch_{'f' * 32}"]))
    scored = None if identity is None else draw(st.none() | states(identity, st.just(seen_at)))
    return Scene(
        changes=draw(st.lists(one, max_size=30)),
        keys={
            Entity.CARD: draw(st.sampled_from([f"{prefix}card 1", None, f"{prefix}never seen"])),
            Entity.CUSTOMER: draw(st.sampled_from([f"{prefix}cus_1", f"{prefix}cus_1", None])),
            Entity.MERCHANT: f"{prefix}acct_1",
        },
        as_of=AsOf(seen_at, identity),
        scored=scored,
    )
