import shutil
from pathlib import Path

import pytest

from stripe_platform.local import stack
from stripe_platform.local.disk import check_free_space, data_folders, free_bytes
from stripe_platform.local.errors import NotEnoughDisk
from stripe_platform.settings import Settings


def settings_with(home: Path, limit: object = 5_000) -> Settings:
    return Settings.model_validate({"stripe_platform_home": home, "least_free_bytes": limit})


def test_exactly_the_limit_is_enough_and_a_byte_less_is_not(tmp_path: Path) -> None:
    settings = settings_with(tmp_path)
    check_free_space(settings, free_bytes=lambda folder: 5_000)
    with pytest.raises(NotEnoughDisk):
        check_free_space(settings, free_bytes=lambda folder: 4_999)


def test_the_error_names_folder_figures_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughDisk) as error:
        check_free_space(settings_with(tmp_path, "2GB"), free_bytes=lambda folder: 1_500_000_000)
    for part in (str(tmp_path), "1.5 GB are free", "2.0 GB are needed", "LEAST_FREE_BYTES", "STRIPE_PLATFORM_HOME"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["postgres", "lake", "lake/raw", "warehouse", "kafka"])
def test_the_disk_that_a_link_leads_to_counts_too(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    settings = settings_with(tmp_path / "home")
    (settings.home / name).parent.mkdir(parents=True)
    (settings.home / name).symlink_to(elsewhere)
    where = {folder for folder in data_folders(settings).values() if folder.is_relative_to(elsewhere)}
    assert where
    with pytest.raises(NotEnoughDisk, match=str(elsewhere)):
        check_free_space(settings, free_bytes=lambda folder: 0 if folder in where else 10_000)


def test_folders_on_the_home_s_own_disk_are_looked_at_once(tmp_path: Path) -> None:
    settings = settings_with(tmp_path / "home")
    settings.lake.mkdir(parents=True)
    assert list(data_folders(settings).values()) == [settings.home]


def test_what_is_written_at_once_must_fit_above_the_limit_where_it_is_written(tmp_path: Path) -> None:
    settings = settings_with(tmp_path)
    check_free_space(settings, into=settings.warehouse_folder, size=1_000, free_bytes=lambda folder: 6_000)
    with pytest.raises(NotEnoughDisk, match=str(settings.warehouse_folder)):
        check_free_space(settings, into=settings.warehouse_folder, size=1_001, free_bytes=lambda folder: 6_000)


def test_a_folder_that_is_not_there_yet_has_the_room_of_where_it_will_be(tmp_path: Path) -> None:
    assert abs(free_bytes(tmp_path / "not" / "yet") - shutil.disk_usage(tmp_path).free) < 1_000_000_000


def test_by_default_a_real_disk_is_asked_and_the_same_limit_keeps_the_stack_from_starting(tmp_path: Path) -> None:
    settings = settings_with(tmp_path / "home", shutil.disk_usage(tmp_path).total)
    with pytest.raises(NotEnoughDisk):
        check_free_space(settings)
    with pytest.raises(NotEnoughDisk):
        stack.start(settings)
    assert not settings.secrets.exists()
    check_free_space(settings_with(tmp_path / "home", 0))
