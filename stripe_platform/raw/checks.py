"""Whether each raw change log holds every change once, within its own offsets."""

import dagster as dg

from stripe_platform.oltp.tables import CAPTURED_TABLES
from stripe_platform.raw.assets import raw_key
from stripe_platform.raw.integrity import offsets_stored_twice, rows_beyond_offsets
from stripe_platform.raw.missing_defaults import rows_without_default
from stripe_platform.raw.unknown_values import rows_with_unknown_values
from stripe_platform.settings import Settings


def _checks_of(table: str) -> list[dg.AssetChecksDefinition]:
    @dg.asset_check(asset=raw_key(table), name="no_offset_is_stored_twice")
    def no_offset_is_stored_twice(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        """A change that is stored twice came past the compare-and-set of the offsets."""
        twice = offsets_stored_twice(settings, table)
        return dg.AssetCheckResult(passed=twice == 0, metadata={"offsets_stored_twice": twice})

    @dg.asset_check(asset=raw_key(table), name="rows_stay_below_the_stored_offsets")
    def rows_stay_below_the_stored_offsets(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        """A row past the stored offset would be read again and stored twice."""
        beyond = rows_beyond_offsets(settings, table)
        return dg.AssetCheckResult(passed=beyond == 0, metadata={"rows_beyond_offsets": beyond})

    @dg.asset_check(asset=raw_key(table), name="no_value_is_unknown")
    def no_value_is_unknown(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        """A large value that no change holds is null in every store, though the row has it."""
        unknown = rows_with_unknown_values(settings, table)
        return dg.AssetCheckResult(
            passed=unknown == 0,
            metadata={"rows_with_unknown_values": unknown, "remedy": f"stripe-platform snapshot {table} --again"},
        )

    @dg.asset_check(asset=raw_key(table), name="no_default_is_missing")
    def no_default_is_missing(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
        """What `ADD COLUMN ... DEFAULT` gave to older rows is null in every store until they are read again."""
        without = rows_without_default(settings, table)
        return dg.AssetCheckResult(
            passed=not without,
            description="; ".join(
                f"{rows:,} rows of {table} may have a value in the added column {column} that no change told"
                for column, rows in without.items()
            ),
            metadata={"rows_without_default": without, "remedy": f"stripe-platform snapshot {table} --again"},
        )

    return [no_offset_is_stored_twice, rows_stay_below_the_stored_offsets, no_value_is_unknown, no_default_is_missing]


change_log_checks = [check for table in CAPTURED_TABLES for check in _checks_of(table.name)]
