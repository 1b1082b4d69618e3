"""The secrets of the local stack: made at the first start, kept in `home/secrets`, a file each."""

import secrets

from pydantic import SecretStr

from stripe_platform.local.errors import BadSecret
from stripe_platform.local.server import write_private
from stripe_platform.settings import Settings

NAMES = ("postgres_password", "cdc_password", "toast_placeholder")
FORBIDDEN = frozenset("\"'\\")
SECRET_BYTES = 24


def with_secrets(settings: Settings) -> Settings:
    """The settings with every secret set: from the environment or `.env`, else from a file, else new."""
    settings.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.secrets.chmod(0o700)
    missing = {name: SecretStr(_kept(settings, name)) for name in NAMES if getattr(settings, name) is None}
    complete = settings.model_copy(update=missing)
    for name in NAMES:
        value = complete.secret(name)
        if any(c in FORBIDDEN or c.isspace() or not c.isprintable() for c in value):
            raise BadSecret(name)
    return complete


def _kept(settings: Settings, name: str) -> str:
    file = settings.secrets / name
    if not file.exists():
        write_private(file, secrets.token_hex(SECRET_BYTES))
    return file.read_text().strip()
