from stripe_platform.stream.progress import Progress
from stripe_platform.stream.reports import REPORTED_EVERY, Due, Reports

FIVE_MINUTES = REPORTED_EVERY.total_seconds()


def test_an_asset_is_reported_at_once_and_then_every_five_minutes_with_the_sum_of_what_came() -> None:
    reports = Reports()
    reports.progressed("raw", Progress({"charges": 3}))
    assert reports.due(0.0) == [Due("raw", "charges", {"rows_added": 3})]
    for rows in (1, 2):
        reports.progressed("raw", Progress({"charges": rows}))
    assert reports.due(FIVE_MINUTES - 1) == []
    assert reports.due(FIVE_MINUTES) == [Due("raw", "charges", {"rows_added": 3})]
    assert reports.due(3 * FIVE_MINUTES) == []


def test_a_quiet_table_keeps_no_busy_one_waiting() -> None:
    reports = Reports()
    reports.progressed("raw", Progress({"charges": 1}))
    reports.due(0.0)
    reports.progressed("raw", Progress({"charges": 1, "refunds": 1}))
    assert [due.name for due in reports.due(1.0)] == ["refunds"]


def test_only_collections_that_changed_are_reported_and_stale_changes_change_none() -> None:
    reports = Reports()
    reports.progressed("mongodb", Progress({"customers": 2}, stale=2))
    assert reports.due(0.0) == []
    reports.progressed("mongodb", Progress({"customers": 3}, stale=2, written={"customers": 1, "source_rows": 0}))
    reports.progressed("mongodb", Progress({}, dead_letters=4))
    assert reports.due(0.0) == [
        Due("mongodb", "customers", {"documents_written": 1}),
        Due("mongodb", "dead_letters", {"documents_written": 4}),
    ]


def test_a_report_that_was_put_back_is_due_at_once_with_what_came_since() -> None:
    reports = Reports()
    reports.progressed("raw", Progress({"charges": 3}))
    due = reports.due(0.0)
    reports.progressed("raw", Progress({"charges": 1}))
    reports.put_back(due)
    assert reports.due(1.0) == [Due("raw", "charges", {"rows_added": 4})]
