"""Facts about a fleet for the doctor, read by `broker.inspection`. What could not be read is None or empty."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from morag_queue.core.policy import Policy, Queues
from morag_queue.core.snapshot import BrokenValue, Snapshot

CLIENT_LIST = "CLIENT LIST"
"""The part of `FleetFacts.unread` without which no connection is known."""


@dataclass(frozen=True, slots=True)
class Server:
    """From INFO and CONFIG.

    `limit_bytes` is maxmemory, 0 for none. `memory_bytes` is the memory of the machine, 0 if unknown. `saves` is
    whether RDB snapshots are configured, None if unknown.
    """

    kind: str = "redis"
    version: str = ""
    mode: str = "standalone"
    role: str = "master"
    used_bytes: int = 0
    limit_bytes: int = 0
    memory_bytes: int = 0
    eviction: str = "noeviction"
    is_append_only: bool = True
    saves: bool | None = None
    append_works: bool = True
    save_works: bool = True


@dataclass(frozen=True, slots=True)
class Permissions:
    """Commands and key patterns that the ACL denies to the login of the URL. `own_keys` is the pattern of our keys.

    `only_reads`: it grants all that a viewer needs, and nothing that changes the fleet.
    """

    user: str = "default"
    commands: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    own_keys: str = "mq:*"
    only_reads: bool = False


@dataclass(frozen=True, slots=True)
class RedisKey:
    """One key with its Redis type."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Keyspace:
    """The keys of known names, and those that a scan found, which ends at a limit.

    own         keys in our namespace
    like_lanes  other keys whose names start with the name of a queue
    expected    type by name of our fixed keys
    families    prefixes of our other keys
    prefix      `global_keyprefix` of kombu
    scanned     number of keys that the scan looked at
    total       number of all keys
    """

    own: tuple[RedisKey, ...] = ()
    like_lanes: tuple[RedisKey, ...] = ()
    expected: Mapping[str, str] = field(default_factory=dict)
    families: tuple[str, ...] = ()
    prefix: str = ""
    scanned: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class MessageSample:
    """One message in a list or in `unacked`, without its payload. `minutes` is the estimate at factor 1."""

    lane: str
    level: int
    is_celery: bool = True
    is_ours: bool = True
    minutes: float = 0.0
    eta_at: float | None = None


@dataclass(frozen=True, slots=True)
class AgentlessWorker:
    """A worker without the agent that answers on Celery's control channel. `conf` has its non-default settings."""

    node: str
    queues: tuple[str, ...] = ()
    conf: Mapping[str, Any] = field(default_factory=dict)

    @property
    def worker(self) -> str:
        return self.node.partition("@")[0]


@dataclass(frozen=True, slots=True)
class AgentConnection:
    """A connection of an agent: its name in CLIENT LIST, `mq.<worker>.<host>.<pid>.<run>`, and its database."""

    name: str
    database: int = 0


@dataclass(frozen=True)
class FleetFacts:
    """All input of the checks.

    version           version of this command
    samples           messages of lanes and of `unacked`
    sampled_messages  number of those of lanes
    silent            listeners on the control channel that did not answer
    connections       connections of agents
    unowned           unacked messages without a known owner
    longest_run_s     longest run of the last day
    last_led_at       when a `watch` last led; None if none has within the last day
    broken            values of our keys that cannot be read
    clock_offset      server's clock minus this machine's, in seconds
    unread            parts that could not be read, with the reason
    """

    snapshot: Snapshot
    policy: Policy = field(default_factory=Policy)
    queues: Queues = field(default_factory=Queues)
    sep: str = ""
    version: str = ""
    server: Server | None = None
    permissions: Permissions | None = None
    keyspace: Keyspace = Keyspace()
    samples: tuple[MessageSample, ...] = ()
    sampled_messages: int = 0
    agentless_workers: tuple[AgentlessWorker, ...] = ()
    silent: int = 0
    connections: tuple[AgentConnection, ...] = ()
    unowned: int = 0
    longest_run_s: float = 0.0
    clock_offset: float = 0.0
    last_led_at: float | None = None
    broken: tuple[BrokenValue, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
