"""The rights of each role, as rules of ACL SETUSER for Redis 7 and Valkey.

Commands come from the list of all that we send (`acl.py`) and from the scripts that a role runs; keys from `keys.py`
and from the heads of these scripts. Only kombu's and Celery's own commands are written here. Tests run each role under
exactly these rules.

A script runs with the rights of its caller, and so does a function of FUNCTION LOAD. So a login that may end a task by
our script may also change these keys without it: the rules separate roles, not the workers of one fleet.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from morag_queue.core.enums import AclRole
from morag_queue.core.model import QueueType
from morag_queue.settings import Settings

from .acl import ARGUMENTS, READS, TEXTS
from .keys import Keys
from .scripts import named_key, source

_READS = frozenset(name.replace(" ", "|") for name in READS)

_TEXTS = frozenset(name.replace(" ", "|") for name in TEXTS)

_CONNECT = "ACL|WHOAMI CLIENT|SETNAME DISCARD EVALSHA EXEC HELLO MULTI PING SCRIPT|EXISTS SELECT TIME"

# Those of kombu; besides what this version of it sends, what its others do.
_SEND = "EXISTS LLEN LPUSH PEXPIRE SADD SMEMBERS ZADD"
_CONSUME = (
    f"{_SEND} BRPOP DEL GET HDEL HGET HSET PSUBSCRIBE PUBLISH PUNSUBSCRIBE RPOP RPUSH SET SREM UNWATCH WATCH ZRANGE "
    "ZRANGEBYSCORE ZREM ZREVRANGEBYSCORE"
)
# Those of Celery's result backend
_RESULTS = "GET MGET SUBSCRIBE UNSUBSCRIBE"
_AGENT = "CLIENT|CACHING CLIENT|LIST CLIENT|TRACKING HGETALL HMGET HSCAN"
_CHORD = "EXPIRE PUBLISH SET SETEX"
_BACKEND = f"{_RESULTS} DEL EXPIRE INCR LLEN LRANGE PUBLISH RPUSH SADD SET SETEX SISMEMBER ZADD ZCOUNT ZRANGE"

# CONFIG GET is in no role: it shows the server's password.
_ALL = frozenset(name.replace(" ", "|") for name in ARGUMENTS) - _TEXTS

Names = tuple[str, ...]


@dataclass(frozen=True)
class _Needs:
    """Commands; keys and channels by the names of `_Patterns`; scripts, whose commands and keys are added to these.

    A script that writes is taken to write all of its keys but those of `reads`.
    """

    commands: str
    reads: str = ""
    writes: str = ""
    channels: str = ""
    scripts: str = ""


_NEEDS = {
    AclRole.VIEWER: _Needs(" ".join(_ALL & _READS), reads="own unacked lists bindings results"),
    AclRole.OPERATOR: _Needs(
        " ".join(_ALL | {*_CONSUME.split()}), reads="results",
        writes="own unacked lists bindings mailboxes", channels="mailbox",
    ),
    AclRole.PRODUCER: _Needs(
        f"{_SEND} {_RESULTS} {_CHORD}", reads="results", writes="lists bindings default groups",
        channels="results groups", scripts="fleet observe submit",
    ),
    AclRole.WORKER: _Needs(
        f"{_CONSUME} {_BACKEND} {_AGENT}", reads="lease paused",
        writes="unacked lists bindings mailboxes events default results groups",
        channels="mailbox events gossip results groups", scripts="beat claim register requeue settle wait",
    ),
    AclRole.WATCH: _Needs(
        " ".join(_ALL | {*_CONSUME.split()}), reads="results",
        writes="own unacked lists bindings mailboxes events", channels="mailbox events",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Rights:
    """The rights of one role on one fleet. Keys and channels are glob-style patterns."""

    role: AclRole
    commands: Names
    reads: Names
    writes: Names
    channels: Names

    @property
    def rules(self) -> Names:
        """The rules of ACL SETUSER, without a login. They replace all earlier rights."""
        commands = [f"+{name.lower()}" for name in self.commands]
        keys = [*(f"~{key}" for key in self.writes), *(f"%R~{key}" for key in self.reads)]
        channels = [f"&{channel}" for channel in self.channels]
        # The server cannot know what a script does with the keys that it is given: EVALSHA asks for both rights on
        # them. What the script does is then checked by the other rules.
        scripts = [name.lower() for name in self.commands if name in ("EVAL", "EVALSHA")]
        given = " ".join([*(f"+{name}" for name in scripts), *(f"~{key}" for key in (*self.writes, *self.reads))])
        return ("resetkeys", "resetchannels", "clearselectors", "-@all", *commands, *keys, *channels, f"({given})")


def rights(role: AclRole, settings: Settings, *, no_eval: bool = False) -> Rights:
    """The rights that a role needs on the fleet of these settings.

    `no_eval`: it may not send the text of a script, and so does not reach the server's interpreter with one of its
    own. `watch` may: it keeps the scripts of all roles loaded.
    """
    needs, patterns = _NEEDS[role], _Patterns(settings)
    commands = {*_CONNECT.split(), *needs.commands.split()}
    if not no_eval or role is AclRole.WATCH:
        commands |= _TEXTS
    only_read, writes = patterns.of(needs.reads.split()), patterns.of(needs.writes.split())
    reads = set(only_read)
    for script in needs.scripts.split():
        sent, touched = commands_of(script), patterns.of(keys_of(script))
        commands |= sent
        if sent <= _READS:
            reads |= touched
        else:
            writes |= touched - only_read
    return Rights(
        role, _sorted(commands), _sorted(reads - writes), _sorted(writes),
        _sorted(channel for name in needs.channels.split() for channel in patterns.channels(name)),
    )  # fmt: skip


def _sorted(names: Iterable[str]) -> Names:
    return tuple(sorted(names))


# -- what scripts do


def commands_of(script: str) -> frozenset[str]:
    """The commands that a script sends."""
    return frozenset(re.findall(r"redis\.p?call\('([A-Z]+)'", source(script)))


def keys_of(script: str) -> list[str]:
    """The names of the keys that a script is given, as in its head."""
    text = re.sub(r"--.*", "", source(script))
    head = re.search(r"local key = \{(.*?)\}", text, re.DOTALL)
    names = re.findall(r"\b(\w+) = (?:KEYS|rest\(KEYS)", head[1]) if head else []
    items = {name: re.findall(r"'(\w+)'", given) for name, given in re.findall(r"records\(key\.(\w+), \{(.*?)\}", text)}
    return [item for name in names for item in items.get(name, [name])]


# -- names of keys and channels

_FAMILIES = {"list": "lists", "source": "lists", "target": "lists"}


class _Patterns:
    """Patterns of keys by the names that scripts and `_NEEDS` give them."""

    def __init__(self, settings: Settings) -> None:
        self._keys = Keys(settings.namespace, settings.broker.global_keyprefix, settings.broker.sep)
        self._database = _database(settings.redis_url)

    def __getitem__(self, name: str) -> Names:
        known: Callable[[], Names] | None = getattr(self, f"_{_FAMILIES.get(name, name)}", None)
        if known is not None:
            return known()
        if isinstance(getattr(Keys, name, None), property):
            return (literal(getattr(self._keys, name)),)
        prefix = getattr(self._keys, name)("") if hasattr(Keys, name) else named_key(self._keys, name)
        return (f"{literal(prefix)}*",)

    def of(self, names: Iterable[str]) -> set[str]:
        return {pattern for name in names for pattern in self[name]}

    def channels(self, name: str) -> Names:
        """The patterns of channels; a subscription to a pattern needs exactly that pattern."""
        fanout = f"{literal(self._keys.prefix)}/{self._database}"
        match name:
            case "mailbox":
                return (f"{fanout}.celery.pidbox",)
            case "events":
                return (f"{fanout}.celeryev/*",)
            case "gossip":
                return (f"{fanout}.celeryev/worker.*",)
        return self[name]

    def _own(self) -> Names:
        return (f"{literal(self._keys.workers).removesuffix('workers')}*",)

    def _unacked(self) -> Names:
        return tuple(literal(f"{self._keys.unacked}{rest}") for rest in ("", "_index", "_mutex"))

    def _lists(self) -> Names:
        """The lanes of our queues, shared, of workers, at all levels."""
        return tuple(pattern for queue in QueueType for pattern in (*self._list(queue), f"{self._prefixed(queue)}.*"))

    def _default(self) -> Names:
        """Celery's own queue, from which workers take too."""
        return self._list("celery")

    def _list(self, lane: str) -> Names:
        return literal(self._keys.list(lane, 0)), f"{literal(self._keys.list(lane, 1))[:-1]}[0-9]"

    def _bindings(self) -> Names:
        return (f"{self._prefixed('_kombu.binding')}*",)

    def _mailboxes(self) -> Names:
        return (f"{self._prefixed('')}*.celery.pidbox*",)

    def _events(self) -> Names:
        return (f"{self._prefixed('celeryev.')}*",)

    def _results(self) -> Names:
        return (f"{literal(self._keys.result(''))}*",)

    def _groups(self) -> Names:
        return f"{self._prefixed('celery-taskset-meta-')}*", f"{self._prefixed('chord-unlock-')}*"

    def _prefixed(self, name: str) -> str:
        return literal(self._keys.prefix + name)


def literal(text: str) -> str:
    """A pattern that matches this text only. A rule cannot hold white space, nor a screen control characters: any
    character in its place matches."""
    return "".join(f"\\{one}" if one in "*?[]\\" else one if one.isprintable() and one != " " else "?" for one in text)


def _database(url: str) -> str:
    last = urlsplit(url.split(";")[-1])
    named = parse_qs(last.query).get("db") or parse_qs(last.query).get("virtual_host")
    return named[0] if named else ("" if last.scheme == "unix" else last.path.strip("/")) or "0"
