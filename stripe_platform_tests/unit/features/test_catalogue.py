"""The committed table of features beside the definitions."""

from stripe_platform.features.catalogue import markdown
from stripe_platform.features.definitions import FEATURES
from stripe_platform.settings import PROJECT_ROOT


def test_the_page_of_features_ends_with_the_table_of_the_definitions() -> None:
    page = (PROJECT_ROOT / "docs/features.md").read_text("utf-8")
    remedy = "replace the table by what python -m stripe_platform.features.catalogue prints"
    assert page.endswith(f"\n\n{markdown()}"), remedy


def test_the_table_says_window_and_delay() -> None:
    (rate,) = (line for line in markdown().splitlines() if "`merchant_fraud_rate_30d`" in line)
    assert "| merchant | 30d, 7 d ago | fraud_rate | share |" in rate
    assert len(markdown().splitlines()) == len(FEATURES) + 2
