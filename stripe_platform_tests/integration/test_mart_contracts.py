"""A captured column that becomes wider than a mart promises, met by a run of the assets."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import dagster as dg
import pyarrow as pa
import pytest

from stripe_platform.raw.change_log import ChangeLog
from stripe_platform.settings import Settings
from stripe_platform.warehouse.build import publish
from stripe_platform.warehouse.published import published_path
from stripe_platform_tests.integration.test_incremental_marts import BUILD_MODELS, marts
from stripe_platform_tests.integration.test_warehouse import (
    BEFORE_MIDNIGHT,
    CHARGE,
    MERCHANT,
    Lake,
    build,
    charge,
    digest,
    key,
    materialize,
    write_payments,
)

# More than a smallint holds.
RISK_SCORE = 70_000


class State:
    """The marts of the build as they are now, and the digest of the published file."""

    def __init__(self, settings: Settings) -> None:
        self.marts = marts(settings)
        self.published = digest(published_path(settings))


@dataclass(frozen=True)
class Stopped:
    """A run of the models that a contract stopped, and what was there before it and after."""

    run: dg.ExecuteInProcessResult
    models: dg.AssetsDefinition
    before: State
    after: State


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STRIPE_PLATFORM_HOME", str(tmp_path_factory.mktemp("manifest")))
        from stripe_platform.warehouse import assets

        yield assets


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, assets: ModuleType) -> Stopped:
    """Published payments, and the run after `risk_score` was widened and used, and a merchant and a charge changed."""
    lake = Lake(tmp_path_factory.mktemp("contract"))
    write_payments(lake)
    build(lake.settings, lake.cut(), *BUILD_MODELS)
    publish(lake.settings)
    before = State(lake.settings)
    widen(lake, "charge_outcomes", "risk_score", pa.int32())
    of_charge = {"charge_id": CHARGE, "charge_created": BEFORE_MIDNIGHT}
    authorized = {"type": "authorized", "network_status": "approved_by_network", "risk_score": RISK_SCORE}
    lake.write("charge_outcomes", of_charge | authorized | {"_op": "u"})
    lake.write("merchants", {"id": MERCHANT, "country": "FR", "business_name": "renamed", "_op": "u"})
    lake.write("charges", charge(key(98), 5), partition=0)
    run = materialize(lake, assets)
    return Stopped(run, assets.warehouse_models, before, State(lake.settings))


def widen(lake: Lake, table: str, column: str, kind: pa.DataType) -> None:
    """What `stripe-platform accept-schema` does once the column has another type in PostgreSQL."""
    row = lake.rows[table]
    lake.rows[table] = row.set(row.get_field_index(column), pa.field(column, kind))
    log = ChangeLog.existing(lake.settings, table)
    assert log is not None
    log.accept(lake.rows[table])


def test_the_runs_failure_names_the_model_and_the_column_with_both_types(stopped: Stopped) -> None:
    (failed,) = [event for event in stopped.run.all_events if event.is_step_failure]
    said = failed.step_failure_data.error_display_string
    assert "model fact_charges (models/marts/fact_charges.sql)" in said
    cells = [[cell.strip() for cell in line.split("|")[1:4]] for line in said.splitlines() if "mismatch" in line]
    assert ["risk_score", "INTEGER", "SMALLINT"] in cells
    assert str(RISK_SCORE) not in said
    assert "\x1b" not in said, "a page shows no colours of a terminal"


def test_the_model_and_all_below_it_stop_and_the_others_are_built(stopped: Stopped) -> None:
    fact_charges = dg.AssetKey(["marts", "fact_charges"])
    below = dg.AssetSelection.assets(fact_charges).downstream().resolve([stopped.models])
    built = {event.asset_key for event in stopped.run.get_asset_materialization_events()}
    assert len(below) > 5
    assert built == stopped.models.keys - below


def test_a_stopped_mart_of_the_build_keeps_its_rows_and_another_goes_on(stopped: Stopped) -> None:
    before, after = stopped.before.marts, stopped.after.marts
    assert after["fact_charges"] == before["fact_charges"]
    assert after["authorization_rates"] == before["authorization_rates"]
    assert len(after["dim_merchants"]) == len(before["dim_merchants"]) + 1


def test_what_was_published_yesterday_stays_as_it_was(stopped: Stopped) -> None:
    assert stopped.after.published == stopped.before.published
    assert dg.AssetKey(["warehouse", "published_marts"]) not in {
        event.asset_key for event in stopped.run.get_asset_materialization_events()
    }
