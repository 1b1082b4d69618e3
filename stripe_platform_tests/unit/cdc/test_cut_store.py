from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stripe_platform.cdc import cut_store
from stripe_platform.cdc.cut import Cut
from stripe_platform.cdc.cut_store import cut_of_run, newest_cut, save_cut
from stripe_platform.settings import Settings

CUT = Cut("first", datetime(2026, 11, 1, tzinfo=UTC), {"charges": {0: 5}}, {"charges": "topic"})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(stripe_platform_home=tmp_path)


def test_a_run_finds_its_own_cut_and_others_the_newest(settings: Settings) -> None:
    later = replace(CUT, id="second")
    save_cut(settings, "run-1", CUT)
    save_cut(settings, "run-2", later)
    assert cut_of_run(settings, "run-1") == CUT
    assert cut_of_run(settings, "run-3") is None
    assert newest_cut(settings) == later


def test_without_any_run_there_is_no_cut(settings: Settings) -> None:
    assert newest_cut(settings) is None


def test_old_cuts_are_let_go_but_never_the_newest(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut_store, "KEPT", 3)
    for number in range(6):
        save_cut(settings, f"run-{number}", replace(CUT, id=f"cut-{number}"))
    assert len(list((settings.home / "cuts").iterdir())) <= 4
    newest = newest_cut(settings)
    assert newest is not None
    assert newest.id == "cut-5"
    assert cut_of_run(settings, "run-5") == newest
