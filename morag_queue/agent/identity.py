"""Who this worker is, for as long as this process lives, and what it has in its hands."""

import os
import secrets
import socket
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from morag_queue.core.failure import Recovery
from morag_queue.core.model import Held


def new_incarnation() -> str:
    """One run in a worker's name: `<host>.<pid>.<random>`."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class Outcome:
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
    outcome: Outcome | None = None
    unwritten: bool = False

    def held(self, worker: str, incarnation: str) -> Held:
        """The record of who has it."""
        return Held(
            tag=self.tag, worker=worker, incarnation=incarnation, task_id=self.task_id, lane=self.lane,
            level=self.level, claimed_at=self.claimed_at,
        )  # fmt: skip


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
    recovery: Recovery = field(default_factory=Recovery)
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
