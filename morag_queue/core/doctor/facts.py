"""What the doctor looks at. Gathered by `broker.inspection`, judged here; what could not be read is None or empty."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from morag_queue.core.policy import Policy
from morag_queue.core.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Server:
    """Of INFO. `memory_bytes` is the machine's, 0 where not known; `saves` (snapshots) is None where it is not."""

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
    """What the login of the URL may not do."""

    user: str = "default"
    commands: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    own_keys: str = "mq:*"


@dataclass(frozen=True, slots=True)
class RedisKey:
    """A key of ours, or one beginning like a lane of ours, with its Redis type."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Keyspace:
    """`expected`: the types of our named keys. `families`: what our other keys begin with.

    `lanes`: the lanes that there are. `partial`: the server has more keys than were looked at.
    """

    own: tuple[RedisKey, ...] = ()
    like_lanes: tuple[RedisKey, ...] = ()
    expected: Mapping[str, str] = field(default_factory=dict)
    families: tuple[str, ...] = ()
    prefix: str = ""
    partial: bool = False


@dataclass(frozen=True, slots=True)
class MessageSample:
    """One message at an end of a list, or in a worker's hands, without its payload."""

    lane: str
    level: int
    is_celery: bool = True
    is_ours: bool = True
    minutes: float = 0.0
    eta_at: float | None = None


@dataclass(frozen=True, slots=True)
class AgentlessWorker:
    """A worker without the agent that answers on Celery's control channel. `conf` is what differs from the defaults."""

    node: str
    queues: tuple[str, ...] = ()
    conf: Mapping[str, Any] = field(default_factory=dict)

    @property
    def worker(self) -> str:
        return self.node.partition("@")[0]


@dataclass(frozen=True, slots=True)
class AgentConnection:
    """An agent's, by its name in CLIENT LIST, `mq.<worker>.<host>.<pid>.<run>`, and the database that it uses."""

    name: str
    database: int = 0


@dataclass(frozen=True)
class Facts:
    """Everything at once. `clock_offset` is the server's clock minus this machine's, in seconds.

    `connections` are those of agents, `silent` counts who listens on the control channel and did not
    answer, `unowned` the messages in hands that nobody says to have; `longest_run_s` is of the last day.
    """

    snapshot: Snapshot
    policy: Policy = field(default_factory=Policy)
    sep: str = ""
    steps: tuple[int, ...] = tuple(range(10))
    version: str = ""
    server: Server | None = None
    permissions: Permissions | None = None
    keyspace: Keyspace = Keyspace()
    samples: tuple[MessageSample, ...] = ()
    agentless_workers: tuple[AgentlessWorker, ...] = ()
    silent: int = 0
    connections: tuple[AgentConnection, ...] = ()
    unowned: int = 0
    longest_run_s: float = 0.0
    clock_offset: float = 0.0
    leader_expected: bool = False
    unread: Mapping[str, str] = field(default_factory=dict)
