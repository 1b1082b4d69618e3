"""Tiles, running sums and their ends against the plain reference, with dictionaries in the place of MongoDB."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_platform.features.definitions import FEATURES
from stripe_platform.features.evaluation import Found, Value, cuts_of, ranges_of, ratio, values_of
from stripe_platform.features.payments import Entity, Payment
from stripe_platform.features.tiles import NOTHING, Tile, TileKey, deltas, total
from stripe_platform.features.windows import DAY, SLOT, AsOf, day_of, merged, slot_name, slot_of
from stripe_platform_tests.unit.features.reference import Scene, reference, scenes

Stored = dict[TileKey, Tile]


def stored_after(steps: Iterable[tuple[Payment | None, Payment | None]], batch: int) -> Stored:
    """The tiles after all changes, written in batches."""
    tiles: Stored = {}
    waiting = [deltas(before, after) for before, after in steps]
    for begin in range(0, len(waiting), batch):
        for place, tile in total(waiting[begin : begin + batch]).items():
            tiles[place] = tiles.get(place, NOTHING).plus(tile)
            assert tiles[place].payments >= 0
            if tiles[place].payments == 0:
                assert tiles.pop(place) == NOTHING
    return tiles


def days_of(tiles: Stored, entity: Entity, key: str) -> dict[int, dict[str, Any]]:
    """The documents of one entity as `tiles.write` lays them out."""
    days: dict[int, dict[str, Any]] = {}
    for place, tile in tiles.items():
        if (place.entity, place.key) == (entity, key):
            day = days.setdefault(day_of(place.start), {**NOTHING._asdict(), "slots": {}})
            day |= Tile(**{field: day[field] for field in Tile._fields}).plus(tile)._asdict()
            day["slots"][slot_name(place.start)] = tile._asdict()
    return days


def found(scene: Scene, tiles: Stored, entity: Entity, key: str) -> Found:
    """What `Found` promises, out of the whole history."""
    t, ranges = scene.as_of.created, ranges_of(entity, scene.as_of)
    payments = [p for p in scene.history if p.key(entity) == key]
    earlier = [p.created for p in payments if t - 30 * DAY < p.created < ranges[-1][0]]
    return Found(
        days=days_of(tiles, entity, key),
        payments=[p for p in payments if any(begin <= p.created <= end for begin, end in ranges)],
        earlier=max(earlier, default=None),
        later_labels=[p.created for p in payments if p.fraud_known_at is not None and p.fraud_known_at > t],
    )


@settings(max_examples=400, deadline=None)
@given(scenes(), st.integers(1, 10))
def test_features_from_tiles_equal_the_plain_reference(scene: Scene, batch: int) -> None:
    tiles = stored_after(scene.steps(), batch)
    values: dict[str, Value] = {}
    for entity, key in scene.keys.items():
        own = scene.scored if scene.scored is not None and scene.scored.key(entity) == key else None
        values |= values_of(entity, None if key is None else found(scene, tiles, entity, key), scene.as_of, own)
    assert values == reference(scene.history, scene.keys, scene.as_of, scene.scored)


@settings(max_examples=200, deadline=None)
@given(scenes(), st.integers(1, 10))
def test_tiles_depend_on_what_there_is_alone_and_not_on_the_way_there(scene: Scene, batch: int) -> None:
    at_once = stored_after(((None, payment) for payment in scene.history), batch=len(scene.history) or 1)
    assert stored_after(scene.steps(), batch) == at_once


def payment(**changed: Any) -> Payment:
    states: Mapping[str, Any] = {
        "id": "ch_1",
        "created": 1_000,
        "merchant": "acct_1",
        "customer": "cus_1",
        "card": None,
        "amount": 500,
        "declined": False,
        "fraud_known_at": None,
    }
    return Payment(**{**states, **changed})


def test_a_change_that_features_do_not_see_changes_no_tile() -> None:
    assert deltas(payment(), payment()) == {}
    assert deltas(payment(fraud_known_at=5), payment(fraud_known_at=3)) == {}


def test_a_card_that_becomes_known_gets_the_whole_payment_and_nobody_else_anything() -> None:
    known = deltas(payment(), payment(card="c"))
    assert known == {TileKey(Entity.CARD, "c", 0): Tile(payments=1, amount=500)}


def test_a_decline_a_rate_and_a_report_correct_the_tiles_they_are_in() -> None:
    corrected = deltas(payment(amount=None), payment(declined=True, fraud_known_at=7))
    assert corrected[TileKey(Entity.CUSTOMER, "cus_1", 0)] == Tile(0, 1, 500, -1, 1)
    assert corrected.keys() == {TileKey(Entity.CUSTOMER, "cus_1", 0), TileKey(Entity.MERCHANT, "acct_1", 0)}


def test_an_insert_and_a_delete_in_one_batch_come_to_nothing() -> None:
    assert total([deltas(None, payment()), deltas(payment(), None)]) == {}


def test_the_division_is_that_of_two_doubles() -> None:
    # As a quotient of integers it would be ...993.0: the numerator itself has no double.
    assert ratio(2**53 + 1, 1) == 2.0**53
    assert ratio(1, 3) == 1 / 3
    assert ratio(5, 0) is None


def test_no_two_ends_of_windows_lie_in_one_slot() -> None:
    """Else the payments of a slot up to one end could not be told from those up to the other."""
    for entity in Entity:
        ends = cuts_of(entity, AsOf(0))
        slots = [slot_of(end) for end in ends]
        assert len(set(slots)) == len(slots)
        assert min(later - earlier for earlier, later in pairwise(ends)) >= SLOT


def test_ranges_that_touch_or_overlap_are_read_as_one() -> None:
    assert merged([(5, 6), (1, 2), (3, 3), (8, 9), (8, 8)]) == ((1, 3), (5, 6), (8, 9))


def test_names_of_features_are_unique_and_say_entity_aggregation_and_window() -> None:
    names = [feature.name for feature in FEATURES]
    assert len(set(names)) == len(names)
    assert {
        "card_payments_24h",
        "card_amount_sum_7d",
        "card_amount_mean_30d",
        "card_declined_1h",
        "card_distinct_merchants_24h",
        "card_microseconds_since_previous",
        "customer_distinct_cards_24h",
        "merchant_fraud_rate_7d",
    } <= set(names)


def test_every_label_is_looked_at_with_a_delay() -> None:
    """Without one a payment would see its own label, and young payments would look honest."""
    delays = {f.name: f.window.delay for f in FEATURES if f.known_time == "charges.fraud_known_at"}
    assert delays
    assert all(delays.values())
