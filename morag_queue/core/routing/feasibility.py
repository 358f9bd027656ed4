"""The fleet as routing sees it: a seat a worker, and what stands against giving it one piece of work."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from morag_queue.core.lanes import queue_of
from morag_queue.core.model import Capability, ContentType, Frozen, QueueType, Requires, WorkerStatus
from morag_queue.core.policy import Binding, Policy, Queues
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.worker_status import in_flight, status_in


class Feasibility(StrEnum):
    """Whether a worker can take a piece of work now; the first obstacle in this order, the lasting ones first."""

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


class Score(Frozen):
    """One worker of the score table. `score` is 0..1, higher is better, 0 for who cannot take it."""

    worker: str
    verdict: Feasibility
    score: float
    expected_minutes: float | None


@dataclass(slots=True)
class WorkerLoad:
    """A worker, and what is on its hands: of the snapshot, plus what this router has given it since."""

    worker: str
    capability: Capability
    slots: int
    queues: frozenset[QueueType]
    content_types: frozenset[ContentType]
    memory_gb: float
    steps: tuple[int, ...]
    status: WorkerStatus
    reason: str
    load: int
    assigned: dict[QueueType, int]

    @property
    def has_gpu(self) -> bool:
        return self.capability.has_gpu

    def take(self, queue: QueueType) -> None:
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
    """The loads of all registered workers, whatever their status."""
    return {view.info.worker: _worker_load(snapshot, view, policy) for view in snapshot.workers}


def _worker_load(snapshot: Snapshot, view: WorkerView, policy: Policy) -> WorkerLoad:
    info = view.info
    word, reason = status_in(snapshot, view, policy)
    assigned = dict.fromkeys(QueueType, 0)
    for own_lane in snapshot.lanes_by_worker.get(info.worker, ()):
        assigned[own_lane.queue] += own_lane.length
    for one in snapshot.held_by_worker.get(info.worker, ()):
        queue = queue_of(one.lane)
        if queue is not None and one.incarnation == info.incarnation:
            assigned[queue] += 1
    return WorkerLoad(
        worker=info.worker,
        capability=info.capability,
        slots=max(info.slots, 1),
        queues=frozenset(queue for queue in QueueType if queue.value in info.queues),
        content_types=frozenset(info.content_types),
        memory_gb=info.memory_gb,
        steps=info.priority_steps,
        status=word,
        reason=reason,
        load=in_flight(view, snapshot.held_count(view)) + snapshot.waiting_count(info.worker),
        assigned=assigned,
    )


def suits(load: WorkerLoad, requires: Requires, content_type: ContentType | None, memory_gb: float) -> Feasibility:
    """What stands against the work itself on this worker: `no_gpu`, `content_type`, `memory`, or nothing (`fit`).

    What is not known (the memory of a worker, the type of a task) stands against nothing.
    """
    if requires is Requires.GPU and not load.has_gpu:
        return Feasibility.NO_GPU
    if load.content_types and content_type is not None and content_type not in load.content_types:
        return Feasibility.CONTENT_TYPE
    if 0 < load.memory_gb < memory_gb:
        return Feasibility.MEMORY
    return Feasibility.FIT


def in_service(load: WorkerLoad) -> Feasibility:
    """What the worker's status says against new work; `fit` while it is online or busy."""
    return _BY_STATUS.get(load.status, Feasibility.FIT)


def is_full(load: WorkerLoad, queue: QueueType, policy: Policy, queues: Queues) -> bool:
    """Bound late, a worker is full when its slots are taken; bound early, at its limit of the queue's table."""
    if policy.binding is Binding.EARLY:
        return load.assigned[queue] >= queues.of(queue).max_tasks_per_worker
    return load.load >= load.slots


def score(load: WorkerLoad, affinity: float, policy: Policy) -> float:
    """0..1, higher is better: how fast it runs the work (1 is the fastest there is) over how loaded it is.

    The load is what it has over its slots. A hybrid counts as loaded by `hybrid_penalty` more: while a specialist is
    as free, the hybrid stays free for whichever kind of work comes next.
    """
    burden = load.load / load.slots
    if load.capability is Capability.HYBRID:
        burden += policy.hybrid_penalty
    return affinity / (1.0 + burden)
