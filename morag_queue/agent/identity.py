"""The identity of this worker process, and its messages in flight."""

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import redis

from morag_queue.core.failure import RecoveryPolicy
from morag_queue.core.policy import Queues
from morag_queue.core.worker_records import HeldMessage


def new_incarnation() -> str:
    """An id for one registration of a worker: `<host>.<pid>.<random>`."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """How a task ended.

    `run_seconds` is None if the task did not run. `held_seconds` is the time from receipt to start.
    """

    state: str
    run_seconds: float | None = None
    held_seconds: float = 0.0
    error: str = ""


@dataclass(slots=True)
class Claim:
    """One message in flight.

    `claimed_at` is the server's clock in seconds. `running`: the pool executes it, so it must not be requeued while
    this worker lives. `accepted`: it was acknowledged before it ran. `outcome` is set once it has ended. `returns`: its
    message goes back to its lane, to run again. `unwritten`: the broker has yet to record the end or the return.
    """

    tag: str
    task_id: str
    task: str
    lane: str
    level: int
    claimed_at: float
    entry: dict[str, Any] = field(default_factory=dict)
    running: bool = False
    accepted: bool = False
    outcome: TaskOutcome | None = None
    returns: bool = False
    unwritten: bool = False

    def held(self, worker: str, incarnation: str) -> HeldMessage:
        """The owner record of the message."""
        return HeldMessage(
            tag=self.tag, worker=worker, incarnation=incarnation, task_id=self.task_id, lane=self.lane,
            level=self.level, claimed_at=self.claimed_at,
        )  # fmt: skip


class FencedError(redis.ConnectionError):
    """Another incarnation acts under this worker's name. As with a lost connection, Celery drops all it holds."""


@dataclass(slots=True)
class Identity:
    """State shared by the heartbeat and the claim.

    `incarnation` changes when a fenced worker registers again. Nothing is claimed unless `registered`, because the
    owner of a message must be known. `in_flight` maps delivery tags to claims; it outlives connections, because a task
    keeps running while its worker reconnects. `slots` returns how many tasks the pool runs at once. `discard_unstarted`
    makes the pool drop the tasks that it has accepted and not started; Celery does the same when it reconnects.
    """

    worker: str
    namespace: str
    retention_seconds: float
    claims: bool = True
    recovery: RecoveryPolicy = field(default_factory=RecoveryPolicy)
    max_retries: int = 3
    queues: Queues = field(default_factory=Queues)
    incarnation: str = field(default_factory=new_incarnation)
    registered: bool = False
    draining: bool = False
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    in_flight: dict[str, Claim] = field(default_factory=dict)
    slots: Callable[[], int] = lambda: 0
    discard_unstarted: Callable[[], object] = lambda: None
    no_claim_reason: str = ""
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    def __post_init__(self) -> None:
        _identities[self.client_name] = self

    @property
    def client_name(self) -> str:
        """The name of all broker connections of this process in CLIENT LIST; its absence proves the process dead.

        Contains no spaces, as CLIENT SETNAME requires. `run` makes it unique: two containers may have the same host
        name and process id.
        """
        return f"mq.{quote(self.worker, safe='')}.{quote(self.host, safe='')}.{self.pid}.{self.run}"

    def raise_if_unregistered(self) -> None:
        """In the event loop: raise FencedError, unless the worker has registered again meanwhile."""
        if not self.registered:
            raise FencedError("fenced")


_identities: dict[str, Identity] = {}
# Never removed: the connections of an ended worker may reconnect, for example those of a producer in the same process.


def identity_of(client_name: str) -> Identity:
    """The identity of this process with that client name.

    The transport options carry the name instead of the identity, because Celery sends them as JSON to `inspect stats`.
    """
    return _identities[client_name]
