"""The broker contract as narrow protocols; `broker.redis` and `broker.memory` implement it.

Both pass one contract suite (tests/broker/test_contract.py). An operation that needs more (client connections, the
control channel) takes the Redis broker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from morag_queue.core.balancing.state import BalancerState
    from morag_queue.core.histogram import Window
    from morag_queue.core.model import Cordon, JournalEntry, Lease, QueueType, WorkerStatus
    from morag_queue.core.plan import MoveTask
    from morag_queue.core.policy import Queues
    from morag_queue.core.recovery.liveness import Connections
    from morag_queue.core.snapshot import Snapshot, Totals
    from morag_queue.settings import Settings

    from .codec import LedgerRecord
    from .lost_work import ResendRequest
    from .requeue import RequeueRequest


class OutgoingMessage(NamedTuple):
    """One message to be queued, with its ledger record. `is_worker_lane` is False for a shared lane."""

    task_id: str
    text: str
    record: str
    queue: str
    lane: str
    level: int
    is_worker_lane: bool


@dataclass(frozen=True, slots=True)
class MoveCounts:
    """Messages of one lane: moved, left because they are foreign, and left because they require a GPU."""

    moved: int
    left: int
    need_gpu: int = 0


class MoveOutcome(StrEnum):
    """The outcome of moving one message."""

    MOVED = "moved"
    GONE = "gone"
    FOREIGN = "foreign"
    GPU = "gpu"


@dataclass(frozen=True, slots=True)
class JournalNote:
    """A new entry of the journal, before it has an id and a time."""

    who: str
    verb: str
    subject: str
    reason: str = ""
    plan_id: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)


class Moves(Protocol):
    """Moves between lanes. A stale `term` changes nothing and raises LeaseLost."""

    def lane(
        self,
        source: str,
        target: str,
        level: int,
        count: int,
        *,
        to_level: int | None = None,
        term: str = "",
        keeps_gpu: bool = False,
    ) -> MoveCounts:
        """Move up to `count` of the oldest messages of one level, in order, behind those that wait in the target.

        `to_level` changes their level; None keeps it.
        """
        ...

    def tasks(self, steps: Sequence[MoveTask], *, term: str = "") -> list[MoveOutcome]:
        """Move single messages. One that requires a GPU stays if its step says `keeps_gpu`."""
        ...


class Requeues(Protocol):
    """Held messages, back to the front of a lane."""

    def apply(self, requests: Iterable[RequeueRequest], *, term: str = "") -> Sequence[str]:
        """Requeue each in one atomic step, in this order; returns the outcomes.

        moved, gone (it has another holder now), early (acknowledged before it ran), foreign, cancelled, or
        quarantined (too many workers died over it). Raises LeaseLost on a stale term.
        """
        ...


class LostTasks(Protocol):
    """Open tasks of the ledger whose message is gone."""

    def resend(self, request: ResendRequest, max_losses: int, *, term: str = "") -> str:
        """Queue the task first in its lane: resent, quarantined, or changed (its record has changed)."""
        ...


class Evidence(Protocol):
    """Which incarnation may act under each worker's name, and the deaths that tasks have caused."""

    def attempts(self, task_ids: Iterable[str]) -> Mapping[str, int]:
        """How many workers have died over each of these tasks; tasks without a death are left out."""
        ...

    def fence(self, worker: str, incarnation: str, *, term: str = "") -> str:
        """Bar this incarnation from acting. Returns "", or the other incarnation that acts under the name now."""
        ...


class Cordons(Protocol):
    """Workers taken out of service."""

    def get(self, worker: str) -> Cordon | None:
        """The cordon of a worker; None while it is in service."""
        ...

    def put(
        self,
        worker: str,
        cordon: Cordon | None,
        over: Iterable[WorkerStatus | None],
        *,
        term: str = "",
        note: JournalNote | None = None,
    ) -> bool:
        """Write the cordon (None lifts it) if the present state is one of `over`; None there means in service.

        `note` is written to the journal in the same step. Returns False when the state is another one. Raises LeaseLost
        on a stale term.
        """
        ...


class Leases(Protocol):
    """The lease of the fleet; only the server's clock ends it."""

    def take(self, holder: str, who: str, verb: str, seconds: float) -> Lease:
        """Take the lease if it is free. Returns the lease in force: the caller's, or that of another holder."""
        ...

    def renew(self, lease: Lease, seconds: float) -> Lease | None:
        """Extend the lease to `seconds` from now. Returns None if another process holds it."""
        ...

    def give_up(self, lease: Lease) -> bool:
        """Returns False if another process holds the lease."""
        ...

    def current(self) -> Lease | None: ...


class Journal(Protocol):
    def write(
        self, who: str, verb: str, subject: str, *, reason: str = "", plan_id: str = "", changes: Mapping[str, Any]
    ) -> str:
        """Append an entry and return its id."""
        ...

    def begin(self, note: JournalNote, *, term: str = "") -> str:
        """Append the intent of a change before its first step, and return the id of the entry.

        Raises LeaseLost on a stale term.
        """
        ...

    def finish(self, begun: str, note: JournalNote) -> str:
        """Replace the entry of a begun change by its result, and return the id of the new entry."""
        ...

    def withdraw(self, begun: str) -> None:
        """Remove the entry of a begun change that changed nothing."""
        ...

    def latest(self, limit: int) -> list[JournalEntry]:
        """The newest entries, newest first."""
        ...

    def get(self, entry_id: str) -> JournalEntry | None: ...


class StateStore(Protocol):
    """The balancer's state between two turns, for the leader of the next one."""

    def load(self) -> BalancerState: ...

    def save(self, state: BalancerState, *, term: str = "") -> None:
        """Store the state. Raises LeaseLost on a stale term."""
        ...


class Broker(Protocol):
    """One fleet."""

    @property
    def fleet(self) -> str:
        """Its name in plans."""
        ...

    @property
    def settings(self) -> Settings: ...

    @property
    def queues(self) -> Queues:
        """The policy of its queues."""
        ...

    @property
    def moves(self) -> Moves: ...

    @property
    def requeues(self) -> Requeues: ...

    @property
    def lost(self) -> LostTasks: ...

    @property
    def evidence(self) -> Evidence: ...

    @property
    def cordons(self) -> Cordons: ...

    @property
    def leases(self) -> Leases: ...

    @property
    def journal(self) -> Journal: ...

    @property
    def state_store(self) -> StateStore: ...

    def translated(self) -> AbstractContextManager[None]:
        """Context in which client errors are raised as errors of this package."""
        ...

    def now(self) -> float:
        """The server's clock, seconds since the epoch."""
        ...

    def observe(self, depth: int = 1, *, partial: bool = False) -> tuple[Snapshot, Mapping[QueueType, Totals]]:
        """Read the fleet, with `depth` entries of each end of its shared lists, and the totals of each queue.

        `partial`: without a part that cannot be read, where the answer is only shown; else that raises BrokerError.
        """
        ...

    def observe_with_windows(
        self, *lengths: float
    ) -> tuple[Snapshot, Mapping[QueueType, Totals], list[Mapping[QueueType, Window]]]:
        """`observe`, and the `windows` of these lengths (seconds) at that time."""
        ...

    def connections(self) -> Connections | None:
        """The open connections of the server; None if they are not known."""
        ...

    def windows(self, now: float, seconds: float) -> Mapping[QueueType, Window]:
        """The counts of each queue in the last `seconds`."""
        ...

    def submit(self, messages: Sequence[OutgoingMessage], note: JournalNote | None = None) -> list[bool]:
        """Queue messages in order. The answer is False for an id that is still open.

        `note` is written to the journal in the same step, if none of them is refused.
        """
        ...

    def records(self, task_ids: Iterable[str]) -> dict[str, LedgerRecord]:
        """The ledger records of those tasks that have one."""
        ...
