"""The facts of `doctor`: each read on its own, so that what may not be read costs that alone."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, TypeVar

import redis
from redis import Redis

from morag_queue.core.doctor.facts import (
    AgentConnection,
    AgentlessWorker,
    Facts,
    Keyspace,
    MessageSample,
    RedisKey,
    Server,
)
from morag_queue.core.doctor.server import FLEET
from morag_queue.core.histogram import seconds_of
from morag_queue.core.model import QueueType
from morag_queue.core.snapshot import Snapshot
from morag_queue.errors import BrokerError

from .acl import permissions
from .agentless import agentless_workers
from .client_list import OURS, ClientList, client_list
from .codec import HEADER, decoded, waiting_task
from .connection import translated
from .keys import Keys
from .redis import RedisBroker
from .scripts import Call, Script

RUNS_SECONDS = 24 * 3600.0
"""How far back the longest measured run is looked for."""


_T = TypeVar("_T")


def inspect(broker: RedisBroker, version: str) -> Facts:
    """Everything that `core.doctor` judges. `version` is this command's own.

    Raises BrokerUnreachable, and BrokerError where not even the fleet can be read.
    """
    settings, client, keys = broker.settings, broker.client, broker.keys
    unread: dict[str, str] = {}

    def read(what: str, function: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return function()
        except (redis.ResponseError, BrokerError, ValueError) as error:
            unread[what] = str(error)
            return otherwise

    with translated(settings.redis_url):
        granted = read("ACL rights", lambda: permissions(client, keys), None)
        info = read("INFO", lambda: client.info("everything"), None)
        offset = read("the server's clock", lambda: _clock_offset(client), 0.0)
        space = read("keys", lambda: keyspace(client, keys), Keyspace())
        clients = read("CLIENT LIST", lambda: client_list(client), ClientList())
        snapshot = read(FLEET, lambda: broker.observe()[0], Snapshot(taken_at=time.time() + offset))
        nodes = frozenset(view.info.node or f"{view.worker}@{view.info.host}" for view in snapshot.workers)
        expected = clients.agentless_listeners
        answered: list[AgentlessWorker] = read(
            "workers without the agent", lambda: list(agentless_workers(client, settings, expected, nodes)), []
        )
        seen: list[MessageSample] = read("messages", lambda: list(samples(client, keys, snapshot)), [])
        return Facts(
            snapshot=snapshot,
            policy=settings.policy,
            sep=settings.broker.sep,
            steps=settings.broker.priority_steps,
            version=version,
            server=None if info is None else _server(info, read("CONFIG", lambda: client.config_get("save"), None)),
            permissions=granted,
            keyspace=space,
            samples=tuple(seen),
            agentless_workers=tuple(answered),
            silent=max(expected - len(answered), 0),
            connections=tuple(_agents(clients)),
            unowned=read("unacked", lambda: _unowned(client, keys), 0),
            longest_run_s=read("figures", lambda: _longest_run(broker, snapshot.taken_at), 0.0),
            clock_offset=offset,
            leader_expected=read("the lease", broker.leases.was_led, False),
            unread=unread,
        )


def _longest_run(broker: RedisBroker, now: float) -> float:
    windows = broker.windows(now, RUNS_SECONDS).values()
    return max((seconds_of(max(one.runs)) for one in windows if one.runs), default=0.0)


def _agents(clients: ClientList) -> Iterator[AgentConnection]:
    """One connection of each agent; the names of commands are shorter."""
    found = {connection.name: connection.database for connection in clients.named()}
    yield from (
        AgentConnection(name, db) for name, db in found.items() if name.startswith(OURS) and name.count(".") >= 4
    )


def _unowned(client: redis.Redis, keys: Keys) -> int:
    """Of one moment: a claim writes both, and an end takes both away."""
    pipe = client.pipeline(transaction=True)
    pipe.hlen(keys.unacked)
    pipe.hlen(keys.held)
    unacked, held = pipe.execute()
    return int(unacked) - int(held)


def _clock_offset(client: redis.Redis) -> float:
    """The server's clock minus ours; 0 where the difference is within the time that asking took."""
    asked = time.time()
    seconds, micros = client.time()
    answered = time.time()
    offset = seconds + micros / 1e6 - (asked + answered) / 2
    return offset if abs(offset) > answered - asked else 0.0


def _server(info: Mapping[str, Any], save: Mapping[Any, Any] | None) -> Server:
    kinds = {"valkey": "valkey_version", "dragonfly": "dragonfly_version", "keydb": "keydb_version"}
    kind = next((kind for kind, field in kinds.items() if field in info), "redis")
    return Server(
        kind=kind,
        version=str(info.get(kinds.get(kind, "redis_version"), "")),
        mode=str(info.get("server_mode") or info.get("redis_mode") or "standalone"),
        role=str(info.get("role", "master")),
        used_bytes=int(info.get("used_memory", 0)),
        limit_bytes=int(info.get("maxmemory", 0)),
        memory_bytes=int(info.get("total_system_memory", 0)),
        eviction=str(info.get("maxmemory_policy", "noeviction")),
        is_append_only=bool(info.get("aof_enabled", 1)),
        saves=None if save is None else bool(save.get("save")),
        append_works=info.get("aof_last_write_status", "ok") == "ok",
        save_works=info.get("rdb_last_bgsave_status", "ok") == "ok",
    )


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


@dataclass(frozen=True)
class ScanKeysCall(Call):
    SCRIPT: ClassVar = "scan_keys"

    cursor: bytes
    count: int
    prefix: str
    families: str
    lanes: Sequence[str]


def keyspace(client: Redis, keys: Keys) -> Keyspace:
    """Our keys and those that begin like our lanes."""
    scan = Script(client, keys, ScanKeysCall)
    known, own = families(keys), f"{keys.prefix}{keys.namespace}:"
    beginnings = [keys.prefix + queue.value for queue in QueueType]
    found: list[RedisKey] = []
    cursor, seen = b"0", 0
    while seen < LOOKED_AT:
        cursor, flat = scan(ScanKeysCall(cursor, _STRETCH, own, json.dumps(known), beginnings))
        found += (RedisKey(_text(name), _text(kind)) for name, kind in zip(flat[::2], flat[1::2], strict=True))
        seen += _STRETCH
        if cursor == b"0":
            break
    expected = named(keys)
    for name in (keys.unacked, keys.unacked_index):
        kind = _text(client.type(name))
        if kind != "none":
            found.append(RedisKey(name, kind))
    return Keyspace(
        own=tuple(key for key in found if key.name.startswith(own) or key.name in expected),
        like_lanes=tuple(key for key in found if not key.name.startswith(own) and key.name not in expected),
        expected=expected,
        families=known,
        prefix=keys.prefix,
        partial=cursor != b"0",
    )


def samples(client: Redis, keys: Keys, snapshot: Snapshot) -> Iterator[MessageSample]:
    """Messages at the ends of lists, and some of those in workers' hands."""
    lists = [(view.lane, level) for view in snapshot.lanes for level, length in enumerate(view.lengths) if length][
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


def _sample(raw: bytes, lane: str, level: int) -> MessageSample:
    task = waiting_task(raw, lane, level)
    if task is None:
        return MessageSample(lane, level, is_celery=False, is_ours=False)
    headers = (decoded(raw) or {})["headers"]
    return MessageSample(
        lane,
        level,
        is_ours=isinstance(headers.get(HEADER), dict),
        minutes=task.estimated_duration or 0.0,
        eta_at=task.eta_at,
    )


def _taken(text: bytes) -> Iterator[MessageSample]:
    try:
        message, _, lane = json.loads(text)
    except (ValueError, TypeError):
        return
    yield _sample(json.dumps(message).encode(), str(lane), 0)


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
