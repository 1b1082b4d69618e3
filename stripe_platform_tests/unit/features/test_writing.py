"""What a write sends, and what is refused of it."""

from bson import encode
from bson.raw_bson import RawBSONDocument

from stripe_platform.features.changes import Change
from stripe_platform.features.projection import Unprojectable
from stripe_platform.features.writing import Write

CHANGE = Change("merchants", "u", {"id": "a"}, (), 0, 1, None)


def stored(**fields: object) -> RawBSONDocument:
    return RawBSONDocument(encode({"_id": "acct_a", **fields}))


def test_only_what_differs_is_sent_and_what_is_gone_is_removed() -> None:
    write = Write(stored(name="a", mcc="1", metadata={"x": 1}), {"_id": "acct_a", "name": "b", "mcc": "1"}, CHANGE)
    assert write.update() == {"$set": {"name": "b"}, "$unset": {"metadata": ""}}


def test_a_value_that_cannot_be_written_differs_from_what_is_stored() -> None:
    value = {"x": "\ud800"}
    write = Write(stored(metadata={"x": "y"}), {"_id": "acct_a", "metadata": value}, CHANGE)
    assert write.update() == {"$set": {"metadata": value}}


def test_a_change_that_made_several_documents_is_refused_once() -> None:
    other = Change("merchants", "u", {"id": "a"}, (), 0, 2, None)
    refused = Unprojectable((CHANGE, "too large"), (other, "too large"), (CHANGE, "too large"))
    assert [id(change) for change, _ in refused.refused] == [id(CHANGE), id(other)]
