"""URLs as they may be shown and written down."""

from __future__ import annotations


def without_credentials(url: str) -> str:
    """A URL, or what was meant for one, without the user and password that may stand before its host.

    Examples
    --------
    >>> without_credentials("https://me:secret@host:8000/v1")
    'https://host:8000/v1'
    """
    scheme, mark, rest = url.rpartition("://")
    # The last one: a password that is written wrongly may have an @, or a slash, of its own.
    return scheme + mark + rest.rpartition("@")[2]
