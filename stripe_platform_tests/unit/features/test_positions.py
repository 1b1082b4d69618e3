import pytest

from stripe_platform.features.changes import Change
from stripe_platform.features.positions import advanced, is_stale


def change(offset: int, lsn: int | None, op: str = "u") -> Change:
    return Change("merchants", op, {"id": "a"}, (), 0, offset, lsn)


@pytest.mark.parametrize(
    ("offset", "lsn", "expected"),
    [
        pytest.param(4, 900, True, id="an earlier offset, whatever its LSN"),
        pytest.param(5, 100, True, id="the same change again"),
        pytest.param(6, 99, True, id="an old streamed change behind the others"),
        pytest.param(6, 100, True, id="the same streamed change behind the others"),
        pytest.param(6, 101, False, id="the next streamed change"),
        pytest.param(6, None, False, id="the next record of a snapshot"),
    ],
)
def test_a_change_is_stale_by_its_offset_or_as_a_streamed_one_by_its_lsn(
    offset: int, lsn: int | None, expected: bool
) -> None:
    assert is_stale({"o": 5, "l": 100, "d": False}, change(offset, lsn)) is expected


def test_nothing_is_stale_for_a_row_that_has_not_come() -> None:
    assert not is_stale(None, change(0, 1))


def test_before_the_first_streamed_change_the_offset_alone_counts() -> None:
    assert not is_stale({"o": 5, "l": None, "d": False}, change(6, 1))


def test_a_snapshot_moves_the_offset_and_keeps_the_highest_lsn() -> None:
    streamed = advanced(None, change(5, 100))

    assert advanced(streamed, change(6, None, "r")) == {"o": 6, "l": 100, "d": False}
    assert advanced(streamed, change(7, 110, "d")) == {"o": 7, "l": 110, "d": True}
