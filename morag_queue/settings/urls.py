"""Broker URLs: which ones are taken, and how they are shown without their secrets."""

import re
from urllib.parse import urlsplit

SCHEMES = ("redis", "rediss", "unix", "sentinel")
MASK = "***"

# To the last @ of the word: a password may hold an unescaped @, / or ?, and showing too little is the safe mistake.
_USERINFO = re.compile(r"(?<=://)([^\s:@/;]*):[^\s;]*@")
_QUERY = re.compile(r"(?i)([?&][^\s=&]*(?:password|passwd|secret|token)[^\s=&]*=)[^\s&;]*")


def mask_url(text: str) -> str:
    """A URL, or a text with URLs in it, with every password replaced by ***."""
    return _QUERY.sub(rf"\1{MASK}", _USERINFO.sub(rf"\1:{MASK}@", text))


def check_url(url: str) -> str:
    """The URL as it is. Raises ValueError in words for a user where no client could use it."""
    nodes = url.split(";") if url.startswith("sentinel://") else [url]
    for node in nodes:
        _check_node(node)
    return url


def _check_node(url: str) -> None:
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
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
    # redis-py takes database 0 when the path is no number: a slip of the finger would be another fleet.
    if parts.path.strip("/") and not parts.path.strip("/").isdecimal():
        raise ValueError("its path should be the number of a database, for example /0")
