"""Which cut a run of dbt builds on."""

from stripe_platform.cdc.cut import Cut
from stripe_platform.cdc.cut_store import cut_of_run, newest_cut
from stripe_platform.errors import StripePlatformError
from stripe_platform.settings import Settings


class NoCut(StripePlatformError):
    """No cut was ever made."""

    def __init__(self) -> None:
        super().__init__(
            "there is no cut to build on: `stripe-platform run oltp_to_warehouse` makes one, drains to it and builds"
        )


def cut_to_build_on(settings: Settings, run_id: str) -> Cut:
    """The cut that this run made, else the newest one of any run; `NoCut` when there is none."""
    cut = cut_of_run(settings, run_id) or newest_cut(settings)
    if cut is None:
        raise NoCut
    return cut
