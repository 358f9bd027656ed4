"""Gather the facts that `doctor` judges. Each is read separately, so that a failed read costs only that fact."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, TypeVar

import redis
from redis import Redis

from morag_queue.core.doctor.facts import (
    CLIENT_LIST,
    AgentConnection,
    AgentlessWorker,
    FleetFacts,
    Keyspace,
    MessageSample,
    RedisKey,
    Server,
)
from morag_queue.core.doctor.server import FLEET
from morag_queue.core.histogram import seconds_of
from morag_queue.core.model import QueueType
from morag_queue.core.snapshot import LaneEntry, Snapshot
from morag_queue.core.worker_status import agent_nodes
from morag_queue.errors import BrokerError

from .acl import permissions
from .agentless import AgentlessWorkers
from .client_list import OURS, ClientList, client_list
from .codec import lane_entry, read_unacked, waiting_task
from .keys import Keys
from .redis import RedisBroker
from .scripts import Call, Script
from .translated import translated

RUNS_SECONDS = 24 * 3600.0
"""The period searched for the longest measured run."""

_T = TypeVar("_T")


def inspect(broker: RedisBroker, version: str) -> FleetFacts:
    """Read all facts. `version` is the version of this command.

    A fact that cannot be read is missing, and its error is in `FleetFacts.unread`. Raises BrokerUnreachable.
    """
    settings, client, keys = broker.settings, broker.client, broker.keys
    unread: dict[str, str] = {}

    def read(fact: str, function: Callable[[], _T], default: _T) -> _T:
        try:
            return function()
        except (redis.ResponseError, BrokerError, ValueError) as error:
            unread[fact] = str(error)
            return default

    with translated(settings.redis_url):
        granted = read("ACL rights", lambda: permissions(client, keys), None)
        info = read("INFO", lambda: client.info("everything"), None)
        offset = read("the server's clock", lambda: _clock_offset(client), 0.0)
        space = read("keys", lambda: keyspace(client, keys), Keyspace())
        clients = read(CLIENT_LIST, lambda: client_list(client), ClientList())
        snapshot = read(FLEET, lambda: broker.observe()[0], Snapshot(taken_at=time.time() + offset))
        nodes = agent_nodes(snapshot, settings.policy)
        agentless = AgentlessWorkers(client, keys, broker.control)
        expected = clients.agentless_workers
        answered: tuple[AgentlessWorker, ...] = read(
            "workers without the agent", lambda: agentless.describe(nodes, expected), ()
        )
        messages: list[MessageSample] = read("messages", lambda: list(samples(client, keys, snapshot)), [])
        return FleetFacts(
            snapshot=snapshot,
            policy=settings.policy,
            sep=settings.broker.sep,
            version=version,
            server=None if info is None else _server(info, read("CONFIG", lambda: client.config_get("save"), None)),
            permissions=granted,
            keyspace=space,
            samples=tuple(messages),
            agentless_workers=answered,
            silent=max(expected - len(answered), 0),
            connections=tuple(_agents(clients)),
            unowned=read("unacked", lambda: _unowned(client, keys), 0),
            longest_run_s=read("figures", lambda: _longest_run(broker, snapshot.taken_at), 0.0),
            clock_offset=offset,
            last_led_at=read("the lease", broker.leases.last_led_at, None),
            unread=unread,
        )


def _longest_run(broker: RedisBroker, now: float) -> float:
    windows = broker.windows(now, RUNS_SECONDS).values()
    return max((seconds_of(max(window.runs)) for window in windows if window.runs), default=0.0)


def _agents(clients: ClientList) -> Iterator[AgentConnection]:
    """One connection of each agent; the names of commands are shorter."""
    found = {connection.name: connection.database for connection in clients.named()}
    yield from (
        AgentConnection(name, db) for name, db in found.items() if name.startswith(OURS) and name.count(".") >= 4
    )


def _unowned(client: redis.Redis, keys: Keys) -> int:
    """The number of messages in `unacked` without an owner. One transaction: a claim writes both keys at once."""
    pipe = client.pipeline(transaction=True)
    pipe.hlen(keys.unacked)
    pipe.hlen(keys.held)
    unacked, held = pipe.execute()
    return int(unacked) - int(held)


def _clock_offset(client: redis.Redis) -> float:
    """The server's clock minus ours in seconds; 0 if the difference is below the time of the round trip."""
    sent = time.time()
    seconds, micros = client.time()
    received = time.time()
    offset = seconds + micros / 1e6 - (sent + received) / 2
    return offset if abs(offset) > received - sent else 0.0


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


MAX_KEYS = 2_000_000
"""The most keys to scan: about one second of server time, in calls of one millisecond."""

_SCAN_COUNT = 2000

_MAX_LISTS = 400
"""The most lists to sample; a lane has ten."""

_SAMPLES_PER_END = 5

_MAX_UNACKED = 200
"""The most messages of `unacked` to sample."""

_TYPES = ("string", "hash", "set", "zset", "list", "stream")


def fixed_keys(keys: Keys) -> dict[str, str]:
    """Each key of `Keys` with a fixed name, and its Redis type: the first word of its docstring."""
    return {
        getattr(keys, name): kind
        for name, member in vars(Keys).items()
        if isinstance(member, property)
        for kind in [(member.__doc__ or "").partition(":")[0]]
        if kind in _TYPES
    } | {keys.unacked: "hash", keys.unacked_index: "zset"}


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


def keyspace(client: Redis, keys: Keys) -> Keyspace:
    """Our keys, and the keys whose names start like our lanes."""
    scan = Script(client, keys, ScanKeysCall)
    families, own = key_families(keys), f"{keys.prefix}{keys.namespace}:"
    lane_prefixes = [keys.prefix + queue.value for queue in QueueType]
    found: list[RedisKey] = []
    cursor, scanned = b"0", 0
    while scanned < MAX_KEYS:
        cursor, flat = scan(ScanKeysCall(cursor, _SCAN_COUNT, own, json.dumps(families), lane_prefixes))
        found += (RedisKey(_text(name), _text(kind)) for name, kind in zip(flat[::2], flat[1::2], strict=True))
        scanned += _SCAN_COUNT
        if cursor == b"0":
            break
    expected = fixed_keys(keys)
    for name in (keys.unacked, keys.unacked_index):
        kind = _text(client.type(name))
        if kind != "none":
            found.append(RedisKey(name, kind))
    return Keyspace(
        own=tuple(key for key in found if key.name.startswith(own) or key.name in expected),
        like_lanes=tuple(key for key in found if not key.name.startswith(own) and key.name not in expected),
        expected=expected,
        families=families,
        prefix=keys.prefix,
        partial=cursor != b"0",
    )


def samples(client: Redis, keys: Keys, snapshot: Snapshot) -> Iterator[MessageSample]:
    """Messages at both ends of the lists, and some unacknowledged messages."""
    nonempty = ((view.lane, level) for view in snapshot.lanes for level, length in enumerate(view.lengths) if length)
    lists = list(islice(nonempty, _MAX_LISTS))
    pipe = client.pipeline(transaction=False)
    for lane, level in lists:
        pipe.lrange(keys.list(lane, level), 0, _SAMPLES_PER_END - 1)
        pipe.lrange(keys.list(lane, level), -_SAMPLES_PER_END, -1)
    ends = pipe.execute(raise_on_error=False)
    for n, (lane, level) in enumerate(lists):
        raws = {raw for end in ends[2 * n : 2 * n + 2] if isinstance(end, list) for raw in end}
        yield from (_sample(raw, lane, level) for raw in raws)
    unacked: Iterable[tuple[bytes, bytes]] = client.hscan_iter(keys.unacked, count=_MAX_UNACKED)
    for _, text in islice(unacked, _MAX_UNACKED):
        yield from _unacked_sample(text)


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


def _unacked_sample(text: bytes) -> Iterator[MessageSample]:
    message = read_unacked(text)
    if message is not None:
        yield _sample(message.text.encode(), message.lane, 0)


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
