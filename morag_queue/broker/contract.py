"""What verbs need of a broker, as narrow protocols: `broker.redis` is the real one, `broker.memory` one in memory.

One contract suite holds for both (tests/broker/test_contract.py). A verb that needs more than this (a worker's
connections, the control channel) says so by taking the Redis broker itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.histogram import Window
from morag_queue.core.model import Cordon, Lease, QueueType, Stored, WorkerStatus
from morag_queue.core.plan import MoveTask
from morag_queue.core.policy import Queues
from morag_queue.core.snapshot import Snapshot, Totals
from morag_queue.settings import Settings

if TYPE_CHECKING:
    from .recovery import RequeueRequest, ResendRequest


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """One message on its way to a lane, with the ledger's record of it. `is_worker_lane`: it is no shared lane."""

    task_id: str
    text: str
    record: str
    queue: str
    lane: str
    level: int
    is_worker_lane: bool


@dataclass(frozen=True, slots=True)
class MoveCounts:
    """Messages of one lane. What was left stayed where it was: not of the expected form, or in need of a GPU."""

    moved: int
    left: int
    need_gpu: int = 0


class MoveOutcome(StrEnum):
    """What became of the move of one message."""

    MOVED = "moved"
    GONE = "gone"
    FOREIGN = "foreign"
    GPU = "gpu"


class JournalEntry(Stored):
    """One change. `entry_id` orders the entries; `at` is the server's clock, seconds since the epoch."""

    entry_id: str
    at: float
    who: str
    verb: str
    subject: str
    reason: str = ""
    plan_id: str = ""
    changes: dict[str, Any] = Field(default_factory=dict, description="what was done, in counts and ids")


class Moves(Protocol):
    """Messages from lane to lane. A `term` that is no longer the lease's changes nothing: LeaseLost."""

    def lane(
        self, source: str, target: str, level: int, count: int, *, term: str = "", keeps_gpu: bool = False
    ) -> MoveCounts:
        """Up to `count` of the oldest of one lane and level, in their order, behind those that wait in the target."""
        ...

    def tasks(self, steps: Sequence[MoveTask], *, term: str = "") -> list[MoveOutcome]:
        """Chosen messages, one by one. One that requires a GPU stays where its step says `keeps_gpu`."""
        ...


class Requeues(Protocol):
    """Held messages, back to the front of a lane."""

    def apply(self, returns: Iterable["RequeueRequest"], *, term: str = "") -> Sequence[str]:
        """Requeue each in one atomic step, in this order; returns the outcomes.

        moved, gone (its holder is another one now), early (acknowledged before it ran), foreign, cancelled, or
        quarantined (too many workers died over it). Raises LeaseLost on a stale term.
        """
        ...


class LostTasks(Protocol):
    """Open tasks of the ledger whose message is gone."""

    def records(self, task_ids: Sequence[str]) -> Mapping[str, str]:
        """The ledger's records of the known tasks, as stored (JSON)."""
        ...

    def resend(self, again: "ResendRequest", max_losses: int, *, term: str = "") -> str:
        """Queue the task first in its lane: resent, quarantined, or changed (its record is another one now)."""
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

    def put(self, worker: str, cordon: Cordon | None, over: Iterable[WorkerStatus | None], *, term: str = "") -> bool:
        """Write the cordon (None lifts it) if the present state is one of `over`; None there means in service.

        Returns False when the state is another one. Raises LeaseLost on a stale term.
        """
        ...


class Leases(Protocol):
    """One lease a fleet, by the server's clock alone."""

    def take(self, holder: str, who: str, verb: str, seconds: float) -> Lease:
        """The lease that stands after the call: the caller's, with a new term, or that of who has it."""
        ...

    def renew(self, lease: Lease, seconds: float) -> Lease | None:
        """The same lease for `seconds` from now; None when it is no longer the caller's."""
        ...

    def give_up(self, lease: Lease) -> bool:
        """False when it was no longer the caller's."""
        ...

    def current(self) -> Lease | None: ...


class Journal(Protocol):
    def write(
        self, who: str, verb: str, subject: str, *, reason: str = "", plan_id: str = "", changes: Mapping[str, Any]
    ) -> str:
        """Appends an entry and gives its id."""
        ...

    def latest(self, limit: int) -> list[JournalEntry]:
        """The newest entries, newest first."""
        ...

    def get(self, entry_id: str) -> JournalEntry | None: ...


class StateStore(Protocol):
    """What the balancing loop keeps in mind between two turns, whoever leads the next one."""

    def load(self) -> BalancerState: ...

    def save(self, memory: BalancerState, *, term: str = "") -> None:
        """Raises LeaseLost when the term is no longer the lease's."""
        ...


class Broker(Protocol):
    """One fleet."""

    @property
    def fleet(self) -> str:
        """What a plan names it by."""
        ...

    @property
    def settings(self) -> Settings: ...

    @property
    def queues(self) -> Queues:
        """The table of its queues."""
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
        """Inside it, errors of the broker's client become ours."""
        ...

    def now(self) -> float:
        """The server's clock, seconds since the epoch."""
        ...

    def observe(self, depth: int = 1) -> tuple[Snapshot, Mapping[QueueType, Totals]]:
        """The fleet at one moment, `depth` entries of each end of its shared lists, and what was ever finished."""
        ...

    def windows(self, now: float, seconds: float) -> Mapping[QueueType, Window]:
        """What happened in each queue in the last `seconds`."""
        ...

    def submit(self, messages: Sequence[OutgoingMessage]) -> list[bool]:
        """Queues messages in order; False for an id that is still open."""
        ...

    def records(self, task_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The ledger's records of those tasks that are known."""
        ...
