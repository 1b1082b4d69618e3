from pathlib import Path

import pytest

from stripe_platform.oltp.migrate import Migration, MigrationError, pending, read_migrations

FIRST = Migration(1, "0001_first.sql", "SELECT 1")
SECOND = Migration(2, "0002_second.sql", "SELECT 2")


def test_the_committed_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.number for migration in read_migrations()] == list(range(1, len(read_migrations()) + 1))


def test_only_what_is_not_applied_is_pending() -> None:
    assert pending((FIRST, SECOND), {}) == (FIRST, SECOND)
    assert pending((FIRST, SECOND), {FIRST.name: FIRST.checksum}) == (SECOND,)


def test_an_edited_applied_file_is_refused_by_name() -> None:
    with pytest.raises(MigrationError, match=r"0001_first\.sql was edited after it was applied"):
        pending((FIRST, SECOND), {FIRST.name: Migration(1, FIRST.name, "SELECT 3").checksum})


def test_a_database_newer_than_the_code_is_refused() -> None:
    with pytest.raises(MigrationError, match=r"has migration 0002_second\.sql, which this version does not know"):
        pending((FIRST,), {FIRST.name: FIRST.checksum, SECOND.name: SECOND.checksum})


def test_a_new_file_numbered_before_an_applied_one_is_refused() -> None:
    with pytest.raises(MigrationError, match="numbered before 0002"):
        pending((FIRST, SECOND), {SECOND.name: SECOND.checksum})


def test_line_ends_of_another_system_do_not_change_the_checksum(tmp_path: Path) -> None:
    (tmp_path / "0001_first.sql").write_bytes(b"SELECT 1;\r\nSELECT 2;\r\n")
    (windows,) = read_migrations(tmp_path)
    (tmp_path / "0001_first.sql").write_bytes(b"SELECT 1;\nSELECT 2;\n")
    (unix,) = read_migrations(tmp_path)

    assert windows.checksum == unix.checksum


@pytest.mark.parametrize("stray", ["1_short.sql", "0002-dashes.sql", "notes.sql"])
def test_a_file_that_is_not_named_as_a_migration_is_refused(tmp_path: Path, stray: str) -> None:
    (tmp_path / stray).write_text("SELECT 1")

    with pytest.raises(MigrationError, match="rename it"):
        read_migrations(tmp_path)


def test_two_files_of_one_number_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("SELECT 1")
    (tmp_path / "0001_b.sql").write_text("SELECT 1")

    with pytest.raises(MigrationError, match="have one number"):
        read_migrations(tmp_path)
