from typing import Any

import pytest

from stripe_platform.features.changes import Change
from stripe_platform.features.encoding import check_values, encoded
from stripe_platform.features.projection import Unprojectable

SECRET = "a value of the row"


def change(value: Any) -> Change:
    return Change("merchants", "u", {"id": "a", "metadata": value}, (), 0, 7, 1)


def nested(levels: int, leaf: Any = SECRET) -> Any:
    value = leaf
    for level in range(levels):
        value = {SECRET: value} if level % 2 else [value]
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(nested(101), "is nested deeper than 100 levels", id="deep"),
        pytest.param(nested(5_000), "is nested deeper than 100 levels", id="as deep as jsonb allows"),
        pytest.param({SECRET: 2**63}, "holds an integer beyond 64 bits", id="integer"),
        pytest.param([-(2**63) - 1], "holds an integer beyond 64 bits", id="negative integer"),
        pytest.param({SECRET: [1e400]}, "holds a number beyond the range of a double", id="double"),
    ],
)
def test_a_value_that_no_document_holds_is_refused_by_its_column_and_not_quoted(value: Any, reason: str) -> None:
    with pytest.raises(Unprojectable) as refused:
        check_values(change(value))

    assert str(refused.value) == f"column metadata {reason}"


@pytest.mark.parametrize(
    "value",
    [{"$x": "$y", "a.b": {"": 1}}, nested(100), [2**63 - 1, -(2**63)], [1.5, None, True], "9" * 400, {}],
)
def test_what_a_document_holds_passes(value: Any) -> None:
    check_values(change(value))


@pytest.mark.parametrize("value", [{SECRET: object()}, "\ud800" + SECRET, {"a\0" + SECRET: 1}])
def test_what_bson_cannot_write_is_refused_without_being_quoted_even_as_the_cause(value: Any) -> None:
    with pytest.raises(Unprojectable) as refused:
        encoded({"_id": "acct_a", "metadata": value}, change(value))

    assert SECRET not in str(refused.value)
    assert refused.value.__context__ is None


def test_a_document_beyond_the_limit_of_mongodb_is_refused() -> None:
    with pytest.raises(Unprojectable, match="larger than 16 MiB"):
        encoded({"_id": "acct_a", "metadata": "x" * 2**24}, change({}))
