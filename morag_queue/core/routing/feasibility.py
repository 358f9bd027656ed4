"""The fleet as routing sees it: the load of each worker, and whether it can take a piece of work."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from morag_queue.core.lanes import queue_of
from morag_queue.core.model import Capability, ContentType, Frozen, QueueType, Requires, WorkerStatus
from morag_queue.core.policy import Binding, Policy, Queues
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.worker_status import in_flight, status


class Feasibility(StrEnum):
    """Whether a worker can take a piece of work now: its first obstacle in this order, lasting ones first, or `fit`."""

    NO_GPU = "no_gpu"
    CONTENT_TYPE = "content_type"
    MEMORY = "memory"
    NOT_SERVED = "not_served"
    DRAINED = "drained"
    OFFLINE = "offline"
    DRAINING = "draining"
    CORDONED = "cordoned"
    SUSPECT = "suspect"
    FULL = "full"
    FIT = "fit"


_PHRASES = {
    Feasibility.NO_GPU: "without a GPU",
    Feasibility.CONTENT_TYPE: "not for this content type",
    Feasibility.MEMORY: "with too little memory",
    Feasibility.NOT_SERVED: "not reading the queue",
}


def count_verdicts(verdicts: Iterable[Feasibility]) -> str:
    """Return the verdicts of all workers, counted, in words: `1 offline, 3 without a GPU`."""
    counts = Counter(verdicts)
    phrases = (
        f"{counts[verdict]} {_PHRASES.get(verdict, verdict.value)}" for verdict in Feasibility if counts[verdict]
    )
    return ", ".join(phrases) or "no worker is registered"


class Score(Frozen):
    """One row of the score table. `score` is 0..1, higher is better; 0 for a worker that cannot take the task."""

    worker: str
    verdict: Feasibility
    score: float
    expected_minutes: float | None


@dataclass(slots=True)
class WorkerLoad:
    """A worker and its load: that of the snapshot, plus what the router has assigned since.

    `load` counts held messages and those in its own lanes; `assigned` counts the same by queue. `reason` explains
    `status` in words. `memory_gb` is 0 where it is unknown.
    """

    worker: str
    capability: Capability
    has_gpu: bool
    slots: int
    queues: frozenset[QueueType]
    content_types: frozenset[ContentType]
    memory_gb: float
    priority_steps: tuple[int, ...]
    status: WorkerStatus
    reason: str
    load: int
    assigned: dict[QueueType, int]

    def take(self, queue: QueueType) -> None:
        """Count one more task of the queue."""
        self.load += 1
        self.assigned[queue] += 1


_BY_STATUS = {
    WorkerStatus.DRAINED: Feasibility.DRAINED,
    WorkerStatus.OFFLINE: Feasibility.OFFLINE,
    WorkerStatus.DRAINING: Feasibility.DRAINING,
    WorkerStatus.CORDONED: Feasibility.CORDONED,
    WorkerStatus.SUSPECT: Feasibility.SUSPECT,
}


def worker_loads(snapshot: Snapshot, policy: Policy) -> Mapping[str, WorkerLoad]:
    """Return the loads of all registered workers by id, whatever their status."""
    return {view.info.worker: worker_load(snapshot, view, policy) for view in snapshot.workers}


def worker_load(snapshot: Snapshot, view: WorkerView, policy: Policy) -> WorkerLoad:
    """Return the load of one worker of the snapshot."""
    info = view.info
    lanes = snapshot.lanes_by_worker.get(info.worker, ())
    assigned = _NOTHING.copy()
    for own_lane in lanes:
        assigned[own_lane.queue] += own_lane.length
    waiting, held = sum(assigned.values()), 0
    for message in snapshot.held_by_worker.get(info.worker, ()):
        if message.incarnation == info.incarnation:
            held += 1
            if (queue := queue_of(message.lane)) is not None:
                assigned[queue] += 1
    state, reason = status(view, held, snapshot.taken_at, policy, waiting_count=waiting)
    return WorkerLoad(
        info.worker,
        info.capability,
        info.capability.has_gpu,
        max(info.slots, 1),
        _served(info.queues),
        frozenset(info.content_types),
        info.memory_gb,
        info.priority_steps,
        state,
        reason,
        in_flight(view, held) + waiting,
        assigned,
    )


_NOTHING = dict.fromkeys(QueueType, 0)


@lru_cache(maxsize=256)  # a fleet has few combinations, and each snapshot asks for every worker
def _served(queues: tuple[str, ...]) -> frozenset[QueueType]:
    return frozenset(queue for queue in QueueType if queue.value in queues)


def suits(load: WorkerLoad, requires: Requires, content_type: ContentType | None, memory_gb: float) -> Feasibility:
    """Return whether the worker suits the work: `no_gpu`, `content_type`, `memory` or `fit`.

    Unknown values (the memory of a worker, the type of a task) are no obstacle.
    """
    if requires is Requires.GPU and not load.has_gpu:
        return Feasibility.NO_GPU
    if load.content_types and content_type is not None and content_type not in load.content_types:
        return Feasibility.CONTENT_TYPE
    if 0 < load.memory_gb < memory_gb:
        return Feasibility.MEMORY
    return Feasibility.FIT


def in_service(load: WorkerLoad) -> Feasibility:
    """Return whether the worker's status allows new work: `fit` while it is online or busy."""
    return _BY_STATUS.get(load.status, Feasibility.FIT)


def is_full(load: WorkerLoad, queue: QueueType, policy: Policy, queues: Queues) -> bool:
    """Return whether the worker has no room: all slots taken (late binding) or at the queue's limit (early binding)."""
    if policy.binding is Binding.EARLY:
        return load.assigned[queue] >= queues.of(queue).max_tasks_per_worker
    return load.load >= load.slots


def score(load: WorkerLoad, affinity: float, policy: Policy) -> float:
    """Return affinity ÷ (1 + load ÷ slots), 0..1, higher is better.

    `affinity` is the speed of this worker for the work, 1 for the fastest capability. `hybrid_penalty` is added to the
    relative load of a hybrid: with a specialist equally free, the hybrid stays free for either kind of work.
    """
    relative_load = load.load / load.slots
    if load.capability is Capability.HYBRID:
        relative_load += policy.hybrid_penalty
    return affinity / (1.0 + relative_load)
