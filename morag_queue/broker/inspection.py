"""Gather the facts that `doctor` judges. Each is read separately, so that a failed read costs only that fact."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import redis

from morag_queue.core.doctor.facts import (
    CLIENT_LIST,
    AgentConnection,
    AgentlessWorker,
    FleetFacts,
    Keyspace,
    MessageSample,
    Server,
)
from morag_queue.core.doctor.server import FLEET
from morag_queue.core.histogram import seconds_of
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.worker_status import agent_nodes
from morag_queue.errors import BrokerError

from .acl import permissions
from .agentless import AgentlessWorkers
from .client_list import OURS, ClientList, client_list
from .keys import Keys
from .redis import RedisBroker
from .samples import keyspace, message_samples, unacked_samples
from .translated import translated

RUNS_SECONDS = 24 * 3600.0
"""The period searched for the longest measured run."""

_JOURNAL_ENTRIES = 1000
"""The entries that are checked."""

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
        clients = read(CLIENT_LIST, lambda: client_list(client), ClientList())
        snapshot = read(FLEET, lambda: broker.observe(partial=True)[0], Snapshot(taken_at=time.time() + offset))
        space = read("keys", lambda: keyspace(client, keys, snapshot), Keyspace())
        nodes = agent_nodes(snapshot, settings.policy)
        agentless = AgentlessWorkers(client, keys, broker.control)
        expected = clients.agentless_workers
        answered: tuple[AgentlessWorker, ...] = read(
            "workers without the agent", lambda: agentless.describe(nodes, expected), ()
        )
        nothing: tuple[MessageSample, ...] = ()
        messages = read("messages", lambda: message_samples(client, keys, snapshot), nothing)
        read("the journal", lambda: len(broker.journal.latest(_JOURNAL_ENTRIES)), 0)
        unacked = read("unacked messages", lambda: unacked_samples(client, keys), nothing)
        return FleetFacts(
            snapshot=snapshot,
            policy=settings.policy,
            queues=settings.queues,
            sep=settings.broker.sep,
            version=version,
            server=None if info is None else _server(info, read("CONFIG", lambda: client.config_get("save"), None)),
            permissions=granted,
            keyspace=space,
            samples=(*messages, *unacked),
            sampled_messages=len(messages),
            agentless_workers=answered,
            silent=max(expected - len(answered), 0),
            connections=tuple(_agents(clients)),
            unowned=read("unacked", lambda: _unowned(client, keys), 0),
            longest_run_s=read("figures", lambda: _longest_run(broker, snapshot.taken_at), 0.0),
            clock_offset=offset,
            last_led_at=read("the lease", broker.leases.last_led_at, None),
            broken=tuple(broker.broken),
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
