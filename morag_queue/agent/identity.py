"""Who this worker is, for as long as this process lives, and what it has in its hands."""

import os
import secrets
import socket
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import redis

from morag_queue.broker.workers import Predecessor, Registry
from morag_queue.core.failure import RecoveryPolicy
from morag_queue.core.model import HeldMessage

from . import hardware


def new_incarnation() -> str:
    """One run in a worker's name: `<host>.<pid>.<random>`."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """How a task ended. `run_seconds`: None if it did not run; `held_seconds`: in hand before it ran."""

    state: str
    run_seconds: float | None = None
    held_seconds: float = 0.0
    error: str = ""


@dataclass(slots=True)
class Claim:
    """One message in hand. `claimed_at` is the server's clock, in seconds.

    `running`: a pool process has it, so it must not be given to anybody else while this worker lives. `accepted`: it
    was acknowledged before it ran. `outcome`: it has ended; `unwritten`: that could not be written down yet.
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
    unwritten: bool = False

    def held(self, worker: str, incarnation: str) -> HeldMessage:
        """The record of who has it."""
        return HeldMessage(
            tag=self.tag, worker=worker, incarnation=incarnation, task_id=self.task_id, lane=self.lane,
            level=self.level, claimed_at=self.claimed_at,
        )  # fmt: skip


class FencedError(redis.ConnectionError):
    """Another incarnation acts under this worker's name. As with a lost connection, Celery drops all it holds."""


@dataclass(slots=True)
class Identity:
    """Shared by the heartbeat and the claim. A fenced worker goes on under a new incarnation, so it can change.

    Nothing is claimed while `registered` is false: an unregistered worker's messages would have no owner to look for.
    `hands` (by delivery tag) outlives connections: a task that runs across a reconnect is still this worker's.
    """

    worker: str
    namespace: str
    retention_seconds: float
    claims: bool = True
    recovery: RecoveryPolicy = field(default_factory=RecoveryPolicy)
    max_retries: int = 3
    incarnation: str = field(default_factory=new_incarnation)
    registered: bool = False
    draining: bool = False
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    hands: dict[str, Claim] = field(default_factory=dict)
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def client_name(self) -> str:
        """The CLIENT LIST name of all its broker connections (no blanks are allowed); its absence proves death.

        Of this process alone: in containers, hosts and process numbers may be the same for two.
        """
        return f"mq.{quote(self.worker, safe='')}.{quote(self.host, safe='')}.{self.pid}.{self.run}"

    def raise_if_unregistered(self) -> None:
        """In the worker's event loop: give up all messages and reconnect, unless that has happened already."""
        if not self.registered:
            raise FencedError("fenced")


PROOF_SECONDS = 5.0
"""How long the name of a silent predecessor is waited for: more than two of its beats."""


def is_dead(registry: Registry, before: Predecessor, me: Identity) -> bool:
    """Waits for a proof: a goodbye, or no connection in its name and no process (on another host: no beat)."""
    info = before.info
    if info is None or before.incarnation == "fenced" or (before.beat is not None and before.beat.stopped):
        return True
    if info.client_name == me.client_name:
        return True  # an earlier registration of this very process
    is_here = info.host == me.host
    if is_here and hardware.is_same_process(info.pid, info.started_at):
        return False
    beat = before.beat.at if before.beat else info.started_at
    deadline = time.monotonic() + PROOF_SECONDS
    while time.monotonic() < deadline:
        if not registry.is_connected(info.client_name) and (is_here or registry.now() - beat > PROOF_SECONDS):
            return True
        time.sleep(0.2)
        latest = registry.acting(info.worker)
        if latest is None or latest.incarnation != before.incarnation:
            return latest is None
        if latest.beat is not None and latest.beat.at > beat:
            return False
    return not registry.is_connected(info.client_name)


def name_taken(worker: str, other: Predecessor) -> str:
    """What a worker says that may not have the name."""
    where = f"on {other.info.host} (process {other.info.pid})" if other.info else other.incarnation
    return (
        f"a live worker named {worker} runs {where}: start this one under another name (-n), "
        f"or stop the other one first"
    )
