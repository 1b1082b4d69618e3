"""What uses the marts, as dbt knows it."""

import json

import dagster as dg
import pytest

from stripe_platform.settings import load_settings
from stripe_platform.warehouse.project import dbt_manifest


@pytest.fixture(scope="module")
def specs() -> dict[str, dg.AssetSpec]:
    from stripe_platform.definitions import defs

    return {spec.key.path[-1]: spec for spec in defs.resolve_all_asset_specs()}


def test_an_exposure_has_an_owner_of_assets_and_reads_assets(specs: dict[str, dg.AssetSpec]) -> None:
    owners = {owner for spec in specs.values() for owner in spec.owners}
    exposures = json.loads(dbt_manifest(load_settings()).read_text())["exposures"].values()
    assert {exposure["name"] for exposure in exposures} == {"dashboard", "scoring_api"}
    for exposure in exposures:
        assert exposure["owner"]["name"] in owners
        assert {node.split(".")[-1] for node in exposure["depends_on"]["nodes"]} <= set(specs)
        assert not exposure["url"]
