"""Check broker URLs, and mask their secrets for display."""

import re
from urllib.parse import urlsplit

SCHEMES = ("redis", "rediss", "unix", "sentinel")
MASK = "***"

_WORD = re.compile(r"(?:(?!;\w+://)\S)+")
"""A URL and what is written to it without a blank; the nodes of Sentinel are words of their own."""

_USER = re.compile(r"://[^\s:@/]*:")
_PARAMETER = re.compile(r"([?&])([^\s=&?]*)=([^\s&;]*)")
_SECRETS = ("password", "passwd", "secret", "token")


def mask_url(text: str) -> str:
    """Replace every password by *** in a URL or a text that contains URLs. Takes linear time for any text."""
    return _PARAMETER.sub(_mask_parameter, _WORD.sub(_mask_user, text))


def _mask_user(word: re.Match[str]) -> str:
    """Mask up to the last @: a password may contain an unescaped @, / or ?, and masking too much is safe."""
    text, last = word[0], word[0].rfind("@")
    user = _USER.search(text, 0, max(last, 0))
    return text if user is None else f"{text[: user.end()]}{MASK}{text[last:]}"


def _mask_parameter(found: re.Match[str]) -> str:
    start, name, value = found.groups()
    is_secret = any(secret in name.lower() for secret in _SECRETS)
    return f"{start}{name}={MASK if is_secret else value}"


def check_url(url: str) -> str:
    """Return the URL unchanged. Raises ValueError with a message for the user if no client can use it."""
    if any(char.isspace() or not char.isprintable() for char in url):
        raise ValueError("it should not contain blanks: write one in a password as %20")
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
