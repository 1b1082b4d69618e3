"""The settings of one stack as environment variables, for the commands that shall work on it."""

from pydantic import SecretStr

from stripe_platform.settings import Settings


def environment(settings: Settings) -> dict[str, str]:
    """The variables that make `load_settings()` give these settings in this process or another one.

    Secrets are left out: a stack keeps its own in its home, others come from `.env` or the environment, and there
    they are found again.
    """
    return {
        name.upper(): str(value)
        for name, value in settings.model_dump().items()
        if value is not None and not isinstance(value, SecretStr)
    }
