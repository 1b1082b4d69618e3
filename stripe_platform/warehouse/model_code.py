"""Which code the models are built by."""

import hashlib

from stripe_platform.settings import PROJECT_ROOT

PROJECT_DIR = PROJECT_ROOT / "dbt"


def digest_of_models() -> str:
    """SHA-256 of all models, macros and contracts: other ones may build other rows from the same change log."""
    digest = hashlib.sha256()
    patterns = ("dbt_project.yml", "models/**/*.sql", "models/**/*.yml", "macros/**/*.sql")
    for path in sorted(path for pattern in patterns for path in PROJECT_DIR.glob(pattern)):
        digest.update(str(path.relative_to(PROJECT_DIR)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
