"""The root of every error the platform raises on purpose."""


class StripePlatformError(Exception):
    """Something the user can mend: the message names the thing, the cause and the remedy.

    The command line prints the message alone; no message holds a row value or a secret.
    """
