"""How dbt models become assets."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtProject

# A build follows each change within minutes, and every hour of a payments company has some: a night without a build
# is worth a look, a day without one a call. How far a model is behind is told by the lag of the stream.
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=1), warn_window=timedelta(hours=12))


def asset_key(node: Mapping[str, Any]) -> list[str]:
    """The key of a model (`<layer>/<model>`) or of a source (`raw/<table>`)."""
    return [node["fqn"][1] if node["resource_type"] == "model" else node["source_name"], node["name"]]


class WarehouseTranslator(DagsterDbtTranslator):
    """The layer folder is the group and the first part of the key; the rest is said in the dbt project itself."""

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        """A model is `<layer>/<model>`; a source keeps its `raw/<table>`."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        node = self.get_resource_props(manifest, unique_id)
        if node["resource_type"] != "model":
            return spec
        key = asset_key(node)
        return spec.replace_attributes(
            key=key, group_name=key[0], description=node["description"].strip(), freshness_policy=FRESH
        )
