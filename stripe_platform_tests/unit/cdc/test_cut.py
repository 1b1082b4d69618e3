import base64
import json
from dataclasses import replace
from datetime import UTC, datetime

from stripe_platform.cdc.cut import Cut, cut_marker

CUT = Cut(
    id="a-cut",
    made_at=datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC),
    offsets={"charges": {0: 10, 1: 0, 3: 2**40}, "refunds": {0: 7}},
    topic_ids={"charges": "np9TTQ5XQ86/EBgSHmUe0A", "refunds": "gEh3kEARQXS4jwJ+fKdsqw"},
    holes={"charges": "0b6f1f0e-1111-4222-8333-444455556666"},
)


def message(prefix: str, content: str) -> bytes:
    encoded = base64.b64encode(content.encode()).decode()
    return json.dumps({"op": "m", "message": {"prefix": prefix, "content": encoded}}).encode()


def test_a_cut_survives_its_json_with_integer_partitions_and_a_time_in_utc() -> None:
    read_back = Cut.from_json(CUT.to_json())
    assert read_back == CUT
    assert read_back.made_at.tzinfo is not None
    assert set(read_back.offsets["charges"]) == {0, 1, 3}


def test_equal_cuts_have_equal_json() -> None:
    turned = replace(CUT, offsets=dict(reversed(CUT.offsets.items())), topic_ids=dict(reversed(CUT.topic_ids.items())))
    assert turned.to_json() == CUT.to_json()


def test_a_cut_kept_by_an_earlier_version_is_read() -> None:
    fields = json.loads(CUT.to_json())
    del fields["holes"]
    assert Cut.from_json(json.dumps(fields)) == replace(CUT, holes={})


def test_a_marker_is_read_from_a_cut_s_message_only() -> None:
    assert cut_marker(message("cut", "a-cut")) == "a-cut"
    assert cut_marker(message("heartbeat", "a-cut")) is None
    assert cut_marker(None) is None
