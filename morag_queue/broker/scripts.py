"""The Lua scripts: each file in `lua/` says in its head which keys it takes, what it returns and what it keeps true."""

from functools import cache
from hashlib import sha1
from importlib.resources import files

from redis import Redis
from redis.commands.core import Script

_INCLUDE = "--#include "


@cache
def source(name: str) -> str:
    """The text of `lua/<name>.lua`, with what its first line includes put before it."""
    text = files(__package__).joinpath("lua", f"{name}.lua").read_text("utf-8")
    first, _, rest = text.partition("\n")
    if not first.startswith(_INCLUDE):
        return text
    return "".join(map(source, first.removeprefix(_INCLUDE).split())) + rest


@cache
def sha(name: str) -> str:
    """What EVALSHA calls it by."""
    return sha1(source(name).encode(), usedforsecurity=False).hexdigest()


def script(client: Redis, name: str) -> Script:
    """A callable `script(keys=…, args=…)`; it reloads itself after SCRIPT FLUSH or a restart of the server."""
    return client.register_script(source(name))
