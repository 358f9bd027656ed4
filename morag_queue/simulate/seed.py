"""The policy `seed`: the design as it was first written, with its defects.

A task is bound at submit to the best available worker: the lowest assigned ÷ limit, and 0.2 more for a hybrid. Without
one its fallback queue is tried, and when all are full it waits in the shared lane of its queue. Nothing is rebalanced.
Priorities go to the broker as they are, where 0 is taken first: URGENT comes last. Workers are seen as offline 60 s
after their last heartbeat; what a dead one ran comes back with kombu's visibility timeout, into the lane it came from.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from itertools import count

from morag_queue.core.levels import DEFAULT_STEPS
from morag_queue.core.model import Capability, QueuePriority, QueueType, Requires
from morag_queue.core.policy import Queues
from morag_queue.core.routing.lane_readers import fallbacks
from morag_queue.core.routing.router import choose_queue

from .engine import SEEN_AFTER_SECONDS, Engine
from .model import SimTask, SimWorker
from .static import VISIBILITY_SECONDS

HYBRID_PENALTY = 0.2

_LEVELS = {priority: max(step for step in DEFAULT_STEPS if step <= min(priority, 9)) for priority in QueuePriority}
"""kombu rounds a priority down to a step."""


class _Lane:
    """One list for each level, the first level first."""

    def __init__(self) -> None:
        self._lists: dict[int, deque[int]] = {step: deque() for step in DEFAULT_STEPS}
        self.length = 0

    def push(self, number: int, level: int, *, first: bool = False) -> None:
        (self._lists[level].appendleft if first else self._lists[level].append)(number)
        self.length += 1

    def head(self) -> int | None:
        """The first level that is not empty."""
        return next((level for level, waiting in self._lists.items() if waiting), None) if self.length else None

    def pop(self, level: int) -> int:
        self.length -= 1
        return self._lists[level].popleft()


class Seed:
    moves = 0

    def __init__(self, engine: Engine, workload: Sequence[SimTask], fleet: Sequence[SimWorker]) -> None:
        self._engine, self._workload, self._queues = engine, workload, Queues()
        self._fleet = {worker.worker: worker for worker in fleet}
        self._shared = {queue: _Lane() for queue in QueueType}
        self._own: dict[str, dict[QueueType, _Lane]] = {worker.worker: {} for worker in fleet}
        self._assigned = dict.fromkeys(self._fleet, 0)
        self._offline: set[str] = set()
        self._falls: dict[str, int] = {}
        self._tags = count()
        self._held: dict[int, tuple[int, _Lane, float]] = {}
        self._best: dict[QueueType, list[tuple[float, int, str]]] = {}
        self._order = {worker.worker: n for n, worker in enumerate(fleet)}
        for queue in QueueType:
            self._best[queue] = []
            for worker in fleet:
                if worker.capability in self._queues.of(queue).served_by:
                    heappush(self._best[queue], self._rank(queue, worker.worker))

    def arrive(self, task: SimTask, now: float) -> Iterable[Capability | str]:
        wanted, level = choose_queue(task.requires, task.priority), _LEVELS[task.priority]
        for queue in fallbacks(wanted, self._queues):
            if task.requires is Requires.GPU and Capability.CPU in self._queues.of(queue).served_by:
                continue
            worker = self._best_of(queue)
            if worker is not None:
                self._count(worker, 1)
                self._own[worker].setdefault(queue, _Lane()).push(task.number, level)
                return (worker,)
        self._shared[wanted].push(task.number, level)
        return self._queues.of(wanted).served_by

    def take(self, worker: SimWorker, now: float) -> tuple[int, int] | None:
        name = worker.worker
        lanes = list(self._own[name].values())
        lanes += [self._shared[queue] for queue in self._queues.served_by(worker.capability)]
        heads = [(level, n) for n, lane in enumerate(lanes) if (level := lane.head()) is not None]
        if not heads:
            return None
        level, n = min(heads)
        number, tag = lanes[n].pop(level), next(self._tags)
        if n >= len(self._own[name]):
            self._count(name, 1)
        self._held[tag] = number, lanes[n], now
        return number, tag

    def end(self, worker: SimWorker, task: SimTask, handle: int, seconds: float, now: float) -> None:
        del self._held[handle]
        self._count(worker.worker, -1)

    def fall(self, worker: SimWorker, handles: Sequence[int], now: float) -> None:
        self._falls[worker.worker] = fall = self._falls.get(worker.worker, 0) + 1
        self._engine.at(now + SEEN_AFTER_SECONDS, self._see, worker.worker, fall)
        for tag in handles:
            number, lane, taken_s = self._held.pop(tag)
            self._count(worker.worker, -1)
            self._engine.at(max(taken_s + VISIBILITY_SECONDS, now), self._restore, number, lane, worker)

    def rise(self, worker: SimWorker, now: float) -> None:
        self._falls[worker.worker] += 1
        self._offline.discard(worker.worker)
        self._count(worker.worker, 0)

    def tick(self, now: float) -> None:
        pass

    def _see(self, worker: str, fall: int) -> None:
        if self._falls[worker] == fall:
            self._offline.add(worker)

    def _restore(self, number: int, lane: _Lane, worker: SimWorker) -> None:
        lane.push(number, _LEVELS[self._workload[number].priority], first=True)
        if lane in self._own[worker.worker].values():
            self._count(worker.worker, 1)
            self._engine.offer((worker.worker,))
        else:
            self._engine.offer_all()

    def _rank(self, queue: QueueType, worker: str) -> tuple[float, int, str]:
        load = self._assigned[worker] / self._queues.of(queue).max_tasks_per_worker
        penalty = HYBRID_PENALTY if self._fleet[worker].capability is Capability.HYBRID else 0.0
        return load + penalty, self._order[worker], worker

    def _count(self, worker: str, change: int) -> None:
        self._assigned[worker] += change
        for queue in self._queues.served_by(self._fleet[worker].capability):
            heappush(self._best[queue], self._rank(queue, worker))

    def _best_of(self, queue: QueueType) -> str | None:
        """The available worker with the lowest rank. Old ranks are dropped when they come up."""
        heap, limit = self._best[queue], self._queues.of(queue).max_tasks_per_worker
        while heap:
            worker = heap[0][2]
            is_old = heap[0] != self._rank(queue, worker)
            if is_old or worker in self._offline or self._assigned[worker] >= limit:
                heappop(heap)  # it comes back when its count changes, or when it starts again
                continue
            return worker
        return None
