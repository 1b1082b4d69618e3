import dagster as dg

from stripe_platform.cdc.assets import CONNECTOR_KEY, connector, topics
from stripe_platform.oltp.tables import CAPTURED_TABLES


def test_every_captured_table_has_its_topic_as_an_external_asset_below_the_table_and_the_connector() -> None:
    for table, spec in zip(CAPTURED_TABLES, topics, strict=True):
        assert spec.key == dg.AssetKey(["cdc", table.name])
        assert {dep.asset_key for dep in spec.deps} == {dg.AssetKey(["oltp", table.name]), CONNECTOR_KEY}
        assert spec.owners == ["team:ingestion"]
        assert spec.metadata["partitions"] == table.topic_partitions


def test_the_connector_comes_after_every_captured_table() -> None:
    assert {key.path[-1] for key in connector.asset_deps[CONNECTOR_KEY]} == {t.name for t in CAPTURED_TABLES}
