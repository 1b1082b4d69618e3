"""Damages to the dimensions that keep every version of a row."""

from stripe_platform_tests.integration.damage import Damage, doubled, mart, null_row


def follow(dimension: str) -> str:
    return f"{dimension}_versions_follow_each_other"


def current(dimension: str) -> str:
    return f"{dimension}_current_versions_are_those_of_staging"


# The dimension that shows the rows of a captured table.
DIMENSIONS = {
    "merchants": "dim_merchants",
    "customers": "dim_customers",
    "card_fingerprints": "dim_cards",
    "products": "dim_products",
}


def version_damages(dimension: str, attribute: str) -> list[Damage]:
    one_each = f"{dimension}_has_one_row_per_*_and_version"
    return [
        doubled(f"marts.{dimension}", "true", f"unique_{dimension}_version_id", one_each, follow(dimension)),
        mart(dimension, "valid_from = valid_from + interval 1 second", follow(dimension)),
        mart(dimension, "version = version + 1", follow(dimension)),
        mart(dimension, "is_current = false", follow(dimension), current(dimension)),
        mart(dimension, f"{attribute} = 'other'", current(dimension)),
        mart(dimension, "is_deleted = not is_deleted", current(dimension)),
        null_row(f"marts.{dimension}", follow(dimension)),
    ]


CUSTOMER_DAMAGES = [
    Damage(
        "a version of a customer that ends after the next has begun",
        "update marts.dim_customers set valid_to = valid_to + interval 1 second where valid_to is not null",
        (follow("dim_customers"),),
    ),
    Damage(
        "a version of a customer without end before the last",
        "update marts.dim_customers set valid_to = null where valid_to is not null",
        (follow("dim_customers"),),
    ),
    Damage(
        "two current versions of a customer",
        "update marts.dim_customers set is_current = true where not is_current",
        (follow("dim_customers"), current("dim_customers")),
    ),
    Damage(
        "a customer whose merchant is beyond the cut, committed after the cut was made",
        "update marts.dim_customers set merchant_id = 'beyond the cut', committed_at = made_at from meta.build",
        (current("dim_customers"),),
    ),
    Damage(
        "a customer of no merchant, committed before the cut was made",
        "update marts.dim_customers set merchant_id = 'nobody', committed_at = made_at - interval 1 microsecond "
        "from meta.build",
        (current("dim_customers"), "relationships_at_cut_dim_customers_merchant_id_*"),
    ),
]
PRODUCT_DAMAGES = [
    mart(
        "dim_products",
        "merchant_id = 'nobody'",
        current("dim_products"),
        "relationships_at_cut_dim_products_merchant_id_*",
    ),
]
DIMENSION_DAMAGES = [
    *CUSTOMER_DAMAGES,
    *PRODUCT_DAMAGES,
    *version_damages("dim_merchants", "country"),
    *version_damages("dim_customers", "country"),
    *version_damages("dim_cards", "brand"),
    *version_damages("dim_products", "name"),
]
