"""A look at the server's keys and at the ends of our lists, bounded however much there is."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from redis import Redis

from morag_queue.core.doctor.facts import Key, Keyspace, Sample
from morag_queue.core.model import QueueType
from morag_queue.core.snapshot import Snapshot

from . import scripts
from .header import HEADER
from .keys import Keys
from .message import decoded, waiting_task

LOOKED_AT = 2_000_000
"""Keys of the server at most: about a second of its time, in calls of a millisecond."""
_STRETCH = 2000
_LISTS = 400
"""Lists whose ends are read at most; a lane has ten."""
_ENDS = 5
"""Messages at each end of a list, and of those in hands, that are looked into."""
_IN_HANDS = 200
_TYPES = ("string", "hash", "set", "zset", "list", "stream")


def named(keys: Keys) -> dict[str, str]:
    """Our named keys with their types, which their descriptions in `Keys` begin with."""
    return {
        getattr(keys, name): kind
        for name, member in vars(Keys).items()
        if isinstance(member, property)
        for kind in [(member.__doc__ or "").partition(":")[0]]
        if kind in _TYPES
    } | {keys.unacked: "hash", keys.unacked_index: "zset"}


def families(keys: Keys) -> tuple[str, ...]:
    """What those of our keys begin with of which there are many: the methods of `Keys` that make a name."""
    makers = [
        getattr(keys, name)
        for name, member in vars(Keys).items()
        if callable(member) and not name.startswith("_") and name != "list"
    ]
    return tuple(maker(0).rpartition(":")[0] + ":" for maker in makers)


def keyspace(client: Redis, keys: Keys) -> Keyspace:
    """Our keys and those that begin like our lanes."""
    look = scripts.script(client, "keys")
    known, own = families(keys), f"{keys.prefix}{keys.namespace}:"
    beginnings = [keys.prefix + queue.value for queue in QueueType]
    found: list[Key] = []
    cursor, seen = b"0", 0
    while seen < LOOKED_AT:
        cursor, flat = look(args=[cursor, _STRETCH, own, len(known), *known, *beginnings])
        found += (Key(_text(name), _text(kind)) for name, kind in zip(flat[::2], flat[1::2], strict=True))
        seen += _STRETCH
        if cursor == b"0":
            break
    expected = named(keys)
    for name in (keys.unacked, keys.unacked_index):
        kind = _text(client.type(name))
        if kind != "none":
            found.append(Key(name, kind))
    return Keyspace(
        own=tuple(key for key in found if key.name.startswith(own) or key.name in expected),
        like_lanes=tuple(key for key in found if not key.name.startswith(own) and key.name not in expected),
        expected=expected,
        families=known,
        prefix=keys.prefix,
        partial=cursor != b"0",
    )


def samples(client: Redis, keys: Keys, picture: Snapshot) -> Iterator[Sample]:
    """Messages at the ends of lists, and some of those in workers' hands."""
    lists = [(view.lane, level) for view in picture.lanes for level, length in enumerate(view.lengths) if length][
        :_LISTS
    ]
    pipe = client.pipeline(transaction=False)
    for lane, level in lists:
        pipe.lrange(keys.list(lane, level), 0, _ENDS - 1)
        pipe.lrange(keys.list(lane, level), -_ENDS, -1)
    ends = pipe.execute(raise_on_error=False)
    for n, (lane, level) in enumerate(lists):
        raws = {raw for end in ends[2 * n : 2 * n + 2] if isinstance(end, list) for raw in end}
        yield from (_sample(raw, lane, level) for raw in raws)
    in_hands: Iterable[tuple[bytes, bytes]] = client.hscan_iter(keys.unacked, count=_IN_HANDS)
    for _, text in islice(in_hands, _IN_HANDS):
        yield from _taken(text)


def _sample(raw: bytes, lane: str, level: int) -> Sample:
    task = waiting_task(raw, lane, level)
    if task is None:
        return Sample(lane, level, is_celery=False, is_ours=False)
    headers = (decoded(raw) or {})["headers"]
    return Sample(
        lane,
        level,
        is_ours=isinstance(headers.get(HEADER), dict),
        minutes=task.estimated_duration or 0.0,
        eta_at=task.eta_at,
    )


def _taken(text: bytes) -> Iterator[Sample]:
    try:
        message, _, lane = json.loads(text)
    except (ValueError, TypeError):
        return
    yield _sample(json.dumps(message).encode(), str(lane), 0)


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
