"""A publication needs room for a copy of the whole warehouse beside the one that everybody reads."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from stripe_platform.cdc.cut import Cut
from stripe_platform.local.errors import NotEnoughDisk
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import build_path, prepare_build, publish
from stripe_platform.warehouse.published import published_path

CUT = Cut("a", datetime(2026, 1, 1, tzinfo=UTC), {}, {})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(stripe_platform_home=tmp_path)
    settings.warehouse_folder.mkdir()
    return settings


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2 * size, size, size))


def test_nothing_is_published_where_the_copy_would_leave_less_than_the_limit(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with duckdb.connect(str(build_path(settings))) as connection:
        connection.execute("create schema meta")
        connection.execute("create table meta.build as select $cut as cut, true as is_tested", {"cut": CUT.to_json()})
    size = build_path(settings).stat().st_size
    free(monkeypatch, settings.least_free_bytes + size - 1)
    with pytest.raises(NotEnoughDisk, match=str(settings.warehouse_folder)):
        publish(settings)
    assert not published_path(settings).exists()
    free(monkeypatch, settings.least_free_bytes + size)
    assert publish(settings).cut == CUT


def test_no_build_begins_below_the_limit(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, settings.least_free_bytes - 1)
    with pytest.raises(NotEnoughDisk):
        prepare_build(settings, CUT)
    assert not build_path(settings).exists()
