"""Check broker URLs, and mask their secrets for display."""

import re
from urllib.parse import urlsplit

SCHEMES = ("redis", "rediss", "unix", "sentinel")
MASK = "***"

# Mask up to the last @: a password may contain an unescaped @, / or ?, and masking too much is safe.
_USERINFO = re.compile(r"(?<=://)([^\s:@/;]*):[^\s;]*@")
_QUERY = re.compile(r"(?i)([?&][^\s=&]*(?:password|passwd|secret|token)[^\s=&]*=)[^\s&;]*")


def mask_url(text: str) -> str:
    """Replace every password by *** in a URL or a text that contains URLs."""
    return _QUERY.sub(rf"\1{MASK}", _USERINFO.sub(rf"\1:{MASK}@", text))


def check_url(url: str) -> str:
    """Return the URL unchanged. Raises ValueError with a message for the user if no client can use it."""
    nodes = url.split(";") if url.startswith("sentinel://") else [url]
    for node in nodes:
        _check_node(node)
    return url


def _check_node(url: str) -> None:
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"it should start with one of {known}, for example redis://localhost:6379/0")
    parts = urlsplit(url)
    if scheme == "unix":
        if not parts.path:
            raise ValueError("it should name a socket, for example unix:///run/redis/redis.sock?db=0")
        return
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("its port should be a number from 0 to 65535") from None
    # redis-py uses database 0 if the path is not a number: a typo would select another fleet.
    if parts.path.strip("/") and not parts.path.strip("/").isdecimal():
        raise ValueError("its path should be the number of a database, for example /0")
