"""URLs as they may be shown and written down."""

from __future__ import annotations

import re
from urllib.parse import urlsplit


def without_credentials(url: str) -> str:
    """A URL, or what was meant for one, without the user and password that may stand before its host.

    Examples
    --------
    >>> without_credentials("https://me:secret@host:8000/v1")
    'https://host:8000/v1'
    """
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    try:
        urlsplit(f"//{rest}").port  # noqa: B018
    except ValueError:
        # A password that is written wrongly may have an @, or a slash, of its own.
        host = rest
    return scheme + mark + host.rpartition("@")[2] + rest[len(host) :]
