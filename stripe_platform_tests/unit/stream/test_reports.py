from stripe_platform.features.assets import DRAINED, collection_key
from stripe_platform.raw.assets import raw_key
from stripe_platform.stream.progress import Progress
from stripe_platform.stream.reports import REPORTED_EVERY, Reports

FIVE_MINUTES = REPORTED_EVERY.total_seconds()


def test_an_asset_is_reported_at_once_and_then_every_five_minutes_with_the_sum_of_what_came() -> None:
    reports = Reports()
    reports.progressed("raw", Progress({"charges": 3}))
    assert [(r.asset_key, r.metadata["rows_added"].value) for r in reports.due(0.0)] == [(raw_key("charges"), 3)]
    for rows in (1, 2):
        reports.progressed("raw", Progress({"charges": rows}))
    assert reports.due(FIVE_MINUTES - 1) == []
    assert [r.metadata["rows_added"].value for r in reports.due(FIVE_MINUTES)] == [3]
    assert reports.due(3 * FIVE_MINUTES) == []


def test_a_quiet_table_keeps_no_busy_one_waiting() -> None:
    reports = Reports()
    reports.progressed("raw", Progress({"charges": 1}))
    reports.due(0.0)
    reports.progressed("raw", Progress({"charges": 1, "refunds": 1}))
    assert [r.asset_key for r in reports.due(1.0)] == [raw_key("refunds")]


def test_a_change_of_documents_is_reported_for_every_collection_and_an_empty_batch_for_none() -> None:
    reports = Reports()
    reports.progressed("mongodb", Progress({}, seconds=0.01))
    assert reports.due(0.0) == []
    reports.progressed("mongodb", Progress({"charges": 5}, stale=2, dead_letters=1))
    told = {r.asset_key: {name: value.value for name, value in r.metadata.items()} for r in reports.due(0.0)}
    assert told.keys() == {collection_key(collection.name) for collection in DRAINED}
    assert all(each == {"changes": 5, "changes_stale": 2, "dead_letters": 1} for each in told.values())
