"""Every key of `broker.keys`, with its type from its description, and the ways to put garbage in it."""

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import redis

from morag_queue.broker.keys import Keys

from .values import LARGE_TEXTS, TEXTS, WRONG, changed_fields

TYPES = ("string", "list", "hash", "set", "zset", "stream")
MAILBOXES = "_kombu.binding.celery.pidbox"
"""kombu's set of the mailboxes of nodes, the one other key that we read."""


ARGUMENTS: dict[str, Any] = {
    "lane": "cpu_standard", "level": 4, "group": "g", "worker": "cpu-1", "task_id": "waits", "first": "wa",
    "part": "completed:0", "at": 0.0,
}  # fmt: skip
"""Of the methods of `Keys`, by name of the parameter."""


@dataclass(frozen=True)
class Place:
    """A key and the type that it should have."""

    name: str
    key: str
    kind: str


def places(keys: Keys, arguments: dict[str, Any]) -> Iterator[Place]:
    """Yield every key; `arguments` are those of the methods of `Keys`, by name of the parameter; others are "1"."""
    yield Place("mailboxes", f"{keys.prefix}{MAILBOXES}", "set")
    for name, member in inspect.getmembers(Keys):
        if name.startswith("_") or name in Keys.__slots__:
            continue
        function = member.fget if isinstance(member, property) else member
        kind = (inspect.getdoc(function) or "").partition(":")[0]
        assert kind in TYPES, f"the description of Keys.{name} must start with its Redis type"
        if isinstance(member, property):
            yield Place(name, getattr(keys, name), kind)
            continue
        given = [arguments.get(one, "1") for one in inspect.signature(function).parameters if one != "self"]
        yield Place(name, getattr(keys, name)(*given), kind)


Spoil = Callable[[redis.Redis], None]


def spoilers(client: redis.Redis, place: Place, *, large: bool = False) -> Iterator[tuple[str, Spoil]]:
    """Yield kinds of garbage and functions that put them in the place. `client` reads the values that are there."""
    for kind in TYPES:
        if kind != place.kind:
            yield f"a {kind}", lambda client, kind=kind: _replace(client, place.key, kind)  # type: ignore[misc]
    for name, text in (TEXTS | LARGE_TEXTS if large else TEXTS).items():
        yield name, lambda client, text=text: _put(client, place, text)  # type: ignore[misc]
    for field, value in _values(client, place):
        for name, wrong in WRONG.items():
            for number, text in enumerate(changed_fields(value, wrong)):
                yield (
                    f"{name} in field {number} of {field!r}",
                    lambda client, field=field, text=text: _set(client, place, field, text),  # type: ignore[misc]
                )


def _replace(client: redis.Redis, key: str, kind: str) -> None:
    client.delete(key)
    _put(client, Place("", key, kind), b"x")


def _put(client: redis.Redis, place: Place, text: bytes) -> None:
    """Put the text in the key in every place where it can be: as each value, as a new field, as a member."""
    key, now = place.key, client.time()[0]
    match place.kind:
        case "string":
            client.set(key, text)
        case "list":
            client.lpush(key, text)
            client.rpush(key, text)
        case "hash":
            for field in client.hkeys(key):
                client.hset(key, field, text)  # type: ignore[arg-type]
            client.hset(key, text, text)  # type: ignore[arg-type]
            client.hset(key, "other", text)  # type: ignore[arg-type]
        case "set":
            client.sadd(key, text)
        case "zset":
            client.zadd(key, {text: now, b"1" + text: float("inf"), b"2" + text: float("-inf")})
        case "stream":
            client.xadd(key, {text: text})
            client.xadd(key, {b"entry": text})


def _values(client: redis.Redis, place: Place) -> list[tuple[Any, bytes]]:
    """The JSON values of a key, each with its field or index; one of each form."""
    found: list[tuple[Any, bytes]] = []
    match client.type(place.key), place.kind:
        case (b"string", "string"):
            found = [("", client.get(place.key))]  # type: ignore[list-item]
        case (b"list", "list"):
            found = [(-1, client.lindex(place.key, -1))]  # type: ignore[list-item]
        case (b"hash", "hash"):
            found = list(client.hgetall(place.key).items())  # type: ignore[union-attr]
        case (b"stream", "stream"):
            found = [("", fields[b"entry"]) for _, fields in client.xrange(place.key)]  # type: ignore[union-attr]
    forms = {}
    for field, text in found:
        try:
            record = json.loads(text)
        except ValueError:
            continue
        if isinstance(record, dict | list):
            forms.setdefault(str(sorted(record)) if isinstance(record, dict) else "", (field, text))
    return list(forms.values())


def _set(client: redis.Redis, place: Place, field: Any, text: bytes) -> None:
    match place.kind:
        case "string":
            client.set(place.key, text)
        case "list":
            client.lset(place.key, field, text)  # type: ignore[arg-type]
        case "hash":
            client.hset(place.key, field, text)  # type: ignore[arg-type]
        case "stream":
            client.xadd(place.key, {b"entry": text})
