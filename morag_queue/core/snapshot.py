"""The frozen picture on which everything is decided: the fleet and the heads of its lanes, never the backlog.

Its size, and so the cost of every decision, goes by the fleet. Dataclasses rather than models: a thousand workers
are five thousand lanes, built anew on every turn out of numbers that the broker has already checked.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from .estimate import Correction
from .model import ContentType, Cordon, Heartbeat, HeldMessage, Lease, QueuePriority, QueueType, Requires, WorkerInfo

NOTHING_QUEUED = (0,) * 10
NOTHING_WAITS: tuple[float | None, ...] = (None,) * 10
NO_ENTRIES: tuple[tuple["LaneEntry", ...], ...] = ((),) * 10


@dataclass(frozen=True, slots=True)
class Totals:
    """What was ever finished, of a worker or a queue. `run_seconds` is the sum over both outcomes."""

    completed: int = 0
    failed: int = 0
    run_seconds: float = 0.0
    failures_in_a_row: int = 0

    @property
    def success_rate(self) -> float | None:
        """Completed of all that ended, 0..1; None before the first task has ended."""
        ended = self.completed + self.failed
        return self.completed / ended if ended else None

    @property
    def mean_run_seconds(self) -> float | None:
        """None before the first task has ended."""
        ended = self.completed + self.failed
        return self.run_seconds / ended if ended else None


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One registered worker: what it said of itself, its last beat, and whether a person took it out of service.

    A `fenced` one was failed over: nothing of it may act in its name any more, until it registers anew.
    """

    info: WorkerInfo
    beat: Heartbeat | None = None
    cordon: Cordon | None = None
    totals: Totals = Totals()
    fenced: bool = False

    @property
    def worker(self) -> str:
        return self.info.worker


@dataclass(frozen=True, slots=True)
class LaneEntry:
    """One entry at an end of a lane, as its message's header tells it.

    `minutes` are estimated at factor 1, `enqueued_at` is seconds since the epoch. `queue` is where it was submitted to,
    `worker` the one it was pinned to, if any.
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
    """One lane by its heads: how many wait at each of the ten levels, and since when the oldest there does.

    `worker` is None for the shared lane. `oldest_enqueued_at` is seconds since the epoch, None where nothing waits or
    the message carries no time. `foreign` counts the messages at the heads that are not of the expected form.

    `heads` are for each level the oldest entries, the oldest first, and `tails` the newest, the newest first, as many
    as the picture was asked for; in a short lane an entry is in both. Messages without our header are in neither.
    """

    lane: str
    queue: QueueType
    worker: str | None = None
    lengths: tuple[int, ...] = NOTHING_QUEUED
    oldest_enqueued_at: tuple[float | None, ...] = NOTHING_WAITS
    foreign: int = 0
    heads: tuple[tuple[LaneEntry, ...], ...] = NO_ENTRIES
    tails: tuple[tuple[LaneEntry, ...], ...] = NO_ENTRIES

    @property
    def length(self) -> int:
        return sum(self.lengths)

    @property
    def oldest(self) -> float | None:
        """When the one that waits longest was queued."""
        return min((at for at in self.oldest_enqueued_at if at is not None), default=None)


@dataclass(frozen=True)
class Snapshot:
    """The fleet at one moment. `taken_at` is the server's clock; `fleet` names the namespace it was read from.

    `corrections` are what was learned of run times, by content type, class and "on a GPU".
    """

    taken_at: float
    workers: tuple[WorkerView, ...] = ()
    lanes: tuple[LaneView, ...] = ()
    held: tuple[HeldMessage, ...] = ()
    paused: frozenset[QueueType] = frozenset()
    leader: Lease | None = None
    fleet: str = ""
    corrections: Mapping[tuple[ContentType, Requires, bool], Correction] = field(default_factory=dict, hash=False)

    @cached_property
    def worker_by_id(self) -> Mapping[str, WorkerView]:
        return MappingProxyType({view.info.worker: view for view in self.workers})

    @cached_property
    def lane_by_name(self) -> Mapping[str, LaneView]:
        return MappingProxyType({view.lane: view for view in self.lanes})

    @cached_property
    def lanes_by_worker(self) -> Mapping[str, tuple[LaneView, ...]]:
        """The lanes of each worker that has any; shared lanes are in none."""
        found: dict[str, list[LaneView]] = defaultdict(list)
        for view in self.lanes:
            if view.worker is not None:
                found[view.worker].append(view)
        return MappingProxyType({worker: tuple(views) for worker, views in found.items()})

    @cached_property
    def lanes_by_queue(self) -> Mapping[QueueType, tuple[LaneView, ...]]:
        """Every queue, with all its lanes: the shared one and the workers'."""
        found: dict[QueueType, list[LaneView]] = {queue: [] for queue in QueueType}
        for view in self.lanes:
            found[view.queue].append(view)
        return MappingProxyType({queue: tuple(views) for queue, views in found.items()})

    @cached_property
    def held_by_worker(self) -> Mapping[str, tuple[HeldMessage, ...]]:
        """What each worker holds, of every run of it: a dead run's messages are still in its name."""
        found: dict[str, list[HeldMessage]] = defaultdict(list)
        for one in self.held:
            found[one.worker].append(one)
        return MappingProxyType({worker: tuple(ones) for worker, ones in found.items()})

    @cached_property
    def pending(self) -> Mapping[QueueType, int]:
        """Every queue, with how many wait in all its lanes."""
        by_queue = self.lanes_by_queue
        return MappingProxyType({queue: sum(view.length for view in views) for queue, views in by_queue.items()})

    def held_count(self, view: WorkerView) -> int:
        """How many messages the present run of a worker has in its hands."""
        ones = self.held_by_worker.get(view.info.worker, ())
        return sum(one.incarnation == view.info.incarnation for one in ones)

    def waiting_count(self, worker: str) -> int:
        """How many messages wait in a worker's own lanes."""
        return sum(view.length for view in self.lanes_by_worker.get(worker, ()))
