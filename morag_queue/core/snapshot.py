"""The immutable snapshot that every decision is made on: the workers and both ends of their lanes, not the backlog.

Its size, and so the cost of a decision, depends on the fleet alone. Dataclasses instead of pydantic models: a fleet of
1,000 workers has 5,000 lanes, built anew on every turn from values that the broker layer has already checked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from .enums import ContentType, QueuePriority, QueueType, Requires
from .estimate import Correction
from .worker_records import HeldMessage, WorkerInfo

if TYPE_CHECKING:
    from .model import Cordon, Heartbeat, Lease, Pause

EMPTY_LENGTHS = (0,) * 10
NO_TIMES: tuple[float | None, ...] = (None,) * 10
NO_ENTRIES: tuple[tuple[LaneEntry, ...], ...] = ((),) * 10


@dataclass(frozen=True, slots=True)
class Totals:
    """All-time counts of a worker or a queue. `run_seconds` is the sum of the run times of both outcomes."""

    completed: int = 0
    failed: int = 0
    run_seconds: float = 0.0
    failures_in_a_row: int = 0

    @property
    def success_rate(self) -> float | None:
        """Completed ÷ ended, 0..1; None before the first task has ended."""
        ended = self.completed + self.failed
        return self.completed / ended if ended else None

    @property
    def mean_run_seconds(self) -> float | None:
        """None before the first task has ended."""
        ended = self.completed + self.failed
        return self.run_seconds / ended if ended else None


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One registered worker: its registration, its last heartbeat, its cordon if it is out of service.

    A `fenced` worker was failed over: its writes are refused until it registers again. `connections` is the number of
    its open connections, None if they were not counted.
    """

    info: WorkerInfo
    beat: Heartbeat | None = None
    cordon: Cordon | None = None
    totals: Totals = Totals()
    fenced: bool = False
    connections: int | None = None

    @property
    def worker(self) -> str:
        return self.info.worker


@dataclass(frozen=True, slots=True)
class LaneEntry:
    """One message at an end of a lane, read from its header.

    `minutes` is the estimate at factor 1, `enqueued_at` is seconds since the epoch. `queue` is the queue that it was
    submitted to, `worker` the worker that it is pinned to, if any.
    """

    task_id: str
    requires: Requires = Requires.CPU
    priority: QueuePriority = QueuePriority.NORMAL
    minutes: float = 0.0
    enqueued_at: float = 0.0
    content_type: ContentType | None = None
    queue: QueueType | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class LaneView:
    """One lane: for each of the ten levels its length, its oldest message and the entries at both ends.

    `worker` is None for a shared lane. `oldest_enqueued_at` is seconds since the epoch, None for an empty level and for
    a message without a time. `foreign` counts the messages at the ends that are not Celery's.

    `heads` are the oldest entries of each level, oldest first; `tails` are the newest, newest first. The reader of the
    snapshot sets how many; in a short lane an entry is in both. Messages without our header are in neither.
    """

    lane: str
    queue: QueueType
    worker: str | None = None
    lengths: tuple[int, ...] = EMPTY_LENGTHS
    oldest_enqueued_at: tuple[float | None, ...] = NO_TIMES
    foreign: int = 0
    heads: tuple[tuple[LaneEntry, ...], ...] = NO_ENTRIES
    tails: tuple[tuple[LaneEntry, ...], ...] = NO_ENTRIES

    @property
    def length(self) -> int:
        return sum(self.lengths)

    @property
    def oldest(self) -> float | None:
        """Enqueue time of the oldest message in the lane."""
        return min((at for at in self.oldest_enqueued_at if at is not None), default=None)


@dataclass(frozen=True, slots=True)
class BrokenValue:
    """A value of one of our keys that cannot be read, and what repairs it. Without a `field` it is the whole key."""

    key: str
    field: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key} {self.field}".rstrip() + f": {self.reason}; {self.remedy}"


@dataclass(frozen=True)
class Snapshot:
    """The fleet at one moment. `taken_at` is the server's clock in seconds since the epoch; `fleet` is the namespace.

    `held` are the unacked messages. `pauses` has the record of each paused queue that has one.
    `corrections` are the learned run times by content type, class and "on a GPU".
    `steps` are the levels that work may be queued at, see `levels`; workers that poll fewer narrow them further.
    `nodes` are the node names with a mailbox for Celery's remote control, with or without the agent. A mailbox outlives
    a node that was killed.
    `broken` are values that could not be read, of each key the first few. The snapshot is made without them.
    """

    taken_at: float
    workers: tuple[WorkerView, ...] = ()
    lanes: tuple[LaneView, ...] = ()
    held: tuple[HeldMessage, ...] = ()
    paused: frozenset[QueueType] = frozenset()
    pauses: Mapping[QueueType, Pause] = field(default_factory=dict, hash=False)
    leader: Lease | None = None
    fleet: str = ""
    corrections: Mapping[tuple[ContentType, Requires, bool], Correction] = field(default_factory=dict, hash=False)
    steps: tuple[int, ...] = tuple(range(10))
    nodes: frozenset[str] = frozenset()
    broken: tuple[BrokenValue, ...] = ()

    @cached_property
    def worker_by_id(self) -> Mapping[str, WorkerView]:
        return MappingProxyType({view.info.worker: view for view in self.workers})

    @cached_property
    def lane_by_name(self) -> Mapping[str, LaneView]:
        return MappingProxyType({view.lane: view for view in self.lanes})

    @cached_property
    def lanes_by_worker(self) -> Mapping[str, tuple[LaneView, ...]]:
        """The lanes of each worker that has any; shared lanes are left out."""
        found: dict[str, list[LaneView]] = defaultdict(list)
        for view in self.lanes:
            if view.worker is not None:
                found[view.worker].append(view)
        return MappingProxyType({worker: tuple(views) for worker, views in found.items()})

    @cached_property
    def lanes_by_queue(self) -> Mapping[QueueType, tuple[LaneView, ...]]:
        """All lanes of every queue: the shared one and the workers'."""
        found: dict[QueueType, list[LaneView]] = {queue: [] for queue in QueueType}
        for view in self.lanes:
            found[view.queue].append(view)
        return MappingProxyType({queue: tuple(views) for queue, views in found.items()})

    @cached_property
    def held_by_worker(self) -> Mapping[str, tuple[HeldMessage, ...]]:
        """Unacked messages by worker, of all its incarnations: those of a dead one still carry the worker's name."""
        found: dict[str, list[HeldMessage]] = defaultdict(list)
        for message in self.held:
            found[message.worker].append(message)
        return MappingProxyType({worker: tuple(messages) for worker, messages in found.items()})

    @cached_property
    def pending(self) -> Mapping[QueueType, int]:
        """Number of messages that wait in all lanes of every queue."""
        by_queue = self.lanes_by_queue
        return MappingProxyType({queue: sum(view.length for view in views) for queue, views in by_queue.items()})

    def pause_of(self, queue: QueueType) -> Pause | None:
        """Return the record of a paused queue, an empty one where no details are known; None for an open queue."""
        from .model import Pause

        return self.pauses.get(queue, Pause()) if queue in self.paused else None

    def held_count(self, view: WorkerView) -> int:
        """Return the number of unacked messages of a worker's present incarnation."""
        messages = self.held_by_worker.get(view.info.worker, ())
        return sum(message.incarnation == view.info.incarnation for message in messages)

    def waiting_count(self, worker: str) -> int:
        """Return the number of messages that wait in a worker's own lanes."""
        return sum(view.length for view in self.lanes_by_worker.get(worker, ()))
