"""Which code the models are built by."""

import hashlib

from stripe_platform.settings import PROJECT_ROOT

PROJECT_DIR = PROJECT_ROOT / "dbt"


def digest_of_models() -> str:
    """SHA-256 of the SQL of all models and macros: another one may build other rows from the same change log."""
    digest = hashlib.sha256()
    for path in sorted([*PROJECT_DIR.glob("models/**/*.sql"), *PROJECT_DIR.glob("macros/**/*.sql")]):
        digest.update(str(path.relative_to(PROJECT_DIR)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
