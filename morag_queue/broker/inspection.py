"""The facts of `doctor`: each read on its own, so that what may not be read costs that alone."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import redis

from morag_queue.core.doctor.facts import Connection, Facts, Keyspace, Listener, Sample, Server
from morag_queue.core.doctor.server import FLEET
from morag_queue.core.figures import seconds_of
from morag_queue.core.snapshot import Snapshot
from morag_queue.errors import BrokerError

from .client import translated
from .keys import Keys
from .keyspace import keyspace, samples
from .listeners import listeners, listening
from .redis import RedisBroker
from .rights import rights

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
        granted = read("ACL rights", lambda: rights(client, keys), None)
        info = read("INFO", lambda: client.info("everything"), None)
        offset = read("the server's clock", lambda: _clock_offset(client), 0.0)
        space = read("keys", lambda: keyspace(client, keys), Keyspace())
        clients: list[Mapping[str, Any]] = read("CLIENT LIST", client.client_list, [])  # type: ignore[arg-type]
        picture = read(FLEET, lambda: broker.observe()[0], Snapshot(taken_at=time.time() + offset))
        nodes = frozenset(view.info.node or f"{view.worker}@{view.info.host}" for view in picture.workers)
        expected = listening(clients)
        answered: list[Listener] = read(
            "workers without the agent", lambda: list(listeners(client, settings, expected, nodes)), []
        )
        seen: list[Sample] = read("messages", lambda: list(samples(client, keys, picture)), [])
        return Facts(
            snapshot=picture,
            policy=settings.policy,
            sep=settings.broker.sep,
            steps=settings.broker.priority_steps,
            version=version,
            server=None if info is None else _server(info, read("CONFIG", lambda: client.config_get("save"), None)),
            rights=granted,
            keyspace=space,
            samples=tuple(seen),
            listeners=tuple(answered),
            silent=max(expected - len(answered), 0),
            connections=tuple(_agents(clients)),
            unowned=read("unacked", lambda: _unowned(client, keys), 0),
            longest_run_s=read("figures", lambda: _longest_run(broker, picture.taken_at), 0.0),
            clock_offset=offset,
            leader_expected=read("the lease", broker.leases.was_led, False),
            unread=unread,
        )


def _longest_run(broker: RedisBroker, now: float) -> float:
    windows = broker.windows(now, RUNS_SECONDS).values()
    return max((seconds_of(max(one.runs)) for one in windows if one.runs), default=0.0)


def _agents(clients: Iterable[Mapping[str, Any]]) -> Iterator[Connection]:
    """One of each agent's connections; those of this command have shorter names."""
    found = {str(one.get("name", "")): int(one.get("db", 0)) for one in clients}
    yield from (Connection(name, db) for name, db in found.items() if name.startswith("mq.") and name.count(".") >= 4)


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
