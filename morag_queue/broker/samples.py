"""Read keys and messages for `doctor`: those of known names exactly, of the others a sample whose size is bounded.

The ledger has a key for each task, so a scan of all keys would take a second of the server's time for each million.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from string import punctuation
from typing import Any, ClassVar

from redis import Redis

from morag_queue.core.doctor.facts import Keyspace, MessageSample, RedisKey
from morag_queue.core.levels import LEVELS
from morag_queue.core.model import QueueType
from morag_queue.core.snapshot import LaneEntry, Snapshot

from .codec import lane_entry, read_unacked, waiting_task
from .keys import KOMBU_SEP, Keys, fixed_keys
from .scripts import Call, Script

MAX_KEYS = 20_000
"""The most keys to scan: 20 ms of the server's time."""

_SCAN_COUNT = 500
"""Keys per call: half a millisecond of the server's time."""

_MAX_LANES = 400
"""The most lanes whose keys are looked at one by one."""

_MAX_LISTS = 400
"""The most lists to sample; a lane has ten."""

_WINDOW, _WINDOWS = 10, 400
"""Messages in a window, fewer where the windows of all lists are many; a list has four."""

_REACH = 20_000
"""The farthest window from an end of its list: Redis walks there, at 10 to 30 ns a message."""

_MAX_UNACKED = 200
"""The most messages of `unacked` to sample."""

_TYPES = ("string", "hash", "set", "zset", "list", "stream")

_SEPARATORS = [KOMBU_SEP, *punctuation.replace(".", "")]
"""Separators to look for by name. Behind a dot follows the worker of a lane."""


def key_families(keys: Keys) -> tuple[str, ...]:
    """The prefixes of the keys whose names the methods of `Keys` build."""
    makers = [
        getattr(keys, name)
        for name, member in vars(Keys).items()
        if callable(member) and not name.startswith("_") and name != "list"
    ]
    return tuple(maker(0).rpartition(":")[0] + ":" for maker in makers)


@dataclass(frozen=True)
class ScanKeysCall(Call):
    SCRIPT: ClassVar = "scan_keys"

    cursor: bytes
    count: int
    prefix: str
    families: str
    lanes: Sequence[str]


def keyspace(client: Redis, keys: Keys, snapshot: Snapshot) -> Keyspace:
    """Our keys, and the keys whose names start like our lanes."""
    families, own = key_families(keys), f"{keys.prefix}{keys.namespace}:"
    expected = fixed_keys(keys) | {keys.ids(f"{first:02x}"): "list" for first in range(256)}
    sampled, scanned, is_partial = _scanned(client, keys, families, own)
    known = _present(client, [*expected, *_lists(keys, snapshot), *_other_lists(client, keys)])
    found = [RedisKey(name, kind) for name, kind in (known | sampled).items()]
    return Keyspace(
        own=tuple(key for key in found if key.name.startswith(own) or key.name in expected),
        like_lanes=tuple(key for key in found if not key.name.startswith(own) and key.name not in expected),
        expected=expected,
        families=families,
        prefix=keys.prefix,
        total=max(int(client.dbsize()), scanned) if is_partial else scanned,
        scanned=scanned,
    )


def _scanned(client: Redis, keys: Keys, families: Sequence[str], own: str) -> tuple[dict[str, str], int, bool]:
    """The type of each key that a bounded scan finds by name, how many keys it looked at, and whether some are left."""
    scan, lanes = Script(client, keys, ScanKeysCall), [keys.prefix + queue.value for queue in QueueType]
    found: dict[str, str] = {}
    cursor, scanned = b"0", 0
    while scanned < MAX_KEYS:
        cursor, number, flat = scan(ScanKeysCall(cursor, _SCAN_COUNT, own, json.dumps(families), lanes))
        found |= {_text(name): _text(kind) for name, kind in zip(flat[::2], flat[1::2], strict=True)}
        scanned += number
        if cursor == b"0":
            break
    return found, scanned, cursor != b"0"


def _present(client: Redis, names: Iterable[str]) -> dict[str, str]:
    """The type of each of these keys that exists."""
    pipe, wanted = client.pipeline(transaction=False), list(dict.fromkeys(names))
    for name in wanted:
        pipe.type(name)
    kinds = map(_text, pipe.execute(raise_on_error=False))  # an error where this login may not read the key
    return {name: kind for name, kind in zip(wanted, kinds, strict=True) if kind in _TYPES}


def _lists(keys: Keys, snapshot: Snapshot) -> Iterator[str]:
    """The keys of the shared lanes, and of the lanes of workers."""
    lanes = dict.fromkeys([*QueueType, *(view.lane for view in snapshot.lanes)])
    yield from (keys.list(lane, level) for lane in islice(lanes, _MAX_LANES) for level in LEVELS)


def _other_lists(client: Redis, keys: Keys) -> list[str]:
    """The lists of the shared lanes under other separators than ours."""
    pipe = client.pipeline(transaction=False)
    groups = [
        [f"{keys.prefix}{queue.value}{sep}{level}" for level in LEVELS]
        for queue in QueueType
        for sep in _SEPARATORS
        if sep != keys.sep
    ]
    for group in groups:
        pipe.exists(*group)
    counts = pipe.execute(raise_on_error=False)
    return [name for group, count in zip(groups, counts, strict=True) if count for name in group]


def message_samples(client: Redis, keys: Keys, snapshot: Snapshot) -> tuple[MessageSample, ...]:
    """Messages at both ends of the lists, and inside of them."""
    nonempty = (
        (view.lane, level, length) for view in snapshot.lanes for level, length in enumerate(view.lengths) if length
    )
    lists = list(islice(nonempty, _MAX_LISTS))
    size = max(2, min(_WINDOW, _WINDOWS // max(len(lists), 1)))
    pipe = client.pipeline(transaction=False)
    for lane, level, length in lists:
        inside = min(length // 3, _REACH)
        for start in (0, inside, -size, -inside - size):
            pipe.lrange(keys.list(lane, level), start, start + size - 1)
    windows = pipe.execute(raise_on_error=False)
    found = []
    for n, (lane, level, _) in enumerate(lists):
        raws = dict.fromkeys(raw for window in windows[4 * n : 4 * n + 4] if isinstance(window, list) for raw in window)
        found += [_sample(raw, lane, level) for raw in raws]
    return tuple(found)


def unacked_samples(client: Redis, keys: Keys) -> tuple[MessageSample, ...]:
    """Some unacknowledged messages."""
    unacked: Iterable[tuple[bytes, bytes]] = client.hscan_iter(keys.unacked, count=_MAX_UNACKED)
    messages = (read_unacked(text) for _, text in islice(unacked, _MAX_UNACKED))
    return tuple(_sample(message.text.encode(), message.lane, 0) for message in messages if message is not None)


def _sample(raw: bytes, lane: str, level: int) -> MessageSample:
    task = waiting_task(raw, lane, level)
    if task is None:
        return MessageSample(lane, level, is_celery=False, is_ours=False)
    return MessageSample(
        lane,
        level,
        is_ours=isinstance(lane_entry(raw, level), LaneEntry),
        minutes=task.estimated_duration or 0.0,
        eta_at=task.eta_at,
    )


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
