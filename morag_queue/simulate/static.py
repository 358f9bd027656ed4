"""The policy `static`: plain Celery as it is used today. A queue for each content type, first in, first out.

Priorities are ignored. Nobody watches the workers: what a dead one ran comes back with kombu's visibility timeout.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import count

from morag_queue.core.model import Capability, ContentType, QueueType, Requires

from .engine import Engine
from .model import SimTask, SimWorker

VISIBILITY_SECONDS = 3600.0
"""kombu's default: a message that is unacknowledged for so long is delivered again."""

_QUEUES = {
    ContentType.AUDIO: QueueType.GPU_PRIORITY,
    ContentType.VIDEO: QueueType.GPU_PRIORITY,
    ContentType.IMAGE: QueueType.GPU_PRIORITY,
    ContentType.DOCUMENT: QueueType.CPU_STANDARD,
    ContentType.WEB: QueueType.CPU_STANDARD,
    ContentType.YOUTUBE: QueueType.GPU_FALLBACK,
}

_READS = {
    Capability.GPU: (QueueType.GPU_PRIORITY, QueueType.GPU_FALLBACK),
    Capability.HYBRID: (QueueType.GPU_PRIORITY, QueueType.GPU_FALLBACK, QueueType.CPU_STANDARD),
    Capability.CPU: (QueueType.CPU_STANDARD, QueueType.GPU_FALLBACK),
}

_READERS = {queue: tuple(capability for capability in Capability if queue in _READS[capability]) for queue in QueueType}


class Static:
    moves = 0

    def __init__(self, engine: Engine, workload: Sequence[SimTask]) -> None:
        self._engine, self._workload = engine, workload
        self._lanes: dict[QueueType, deque[int]] = {queue: deque() for queue in QueueType}
        self._turn: dict[str, int] = {}
        self._tags = count()
        self._held: dict[int, tuple[int, QueueType, float]] = {}

    def arrive(self, task: SimTask, now: float) -> Iterable[Capability]:
        # Work that requires a GPU would fail on a CPU worker: no operator sends it to a queue that one reads.
        queue = QueueType.GPU_PRIORITY if task.requires is Requires.GPU else _QUEUES[task.content_type]
        self._lanes[queue].append(task.number)
        return _READERS[queue]

    def take(self, worker: SimWorker, now: float) -> tuple[int, int] | None:
        """Take from the worker's queues in turn, as kombu does."""
        queues = _READS[worker.capability]
        first = self._turn.get(worker.worker, 0)
        for n in range(first, first + len(queues)):
            queue = queues[n % len(queues)]
            if self._lanes[queue]:
                self._turn[worker.worker] = (n + 1) % len(queues)
                number, tag = self._lanes[queue].popleft(), next(self._tags)
                self._held[tag] = number, queue, now
                return number, tag
        return None

    def end(self, worker: SimWorker, task: SimTask, handle: int, seconds: float, now: float) -> None:
        del self._held[handle]

    def fall(self, worker: SimWorker, handles: Sequence[int], now: float) -> None:
        for tag in handles:
            number, queue, taken_s = self._held.pop(tag)
            self._engine.at(max(taken_s + VISIBILITY_SECONDS, now), self._restore, number, queue)

    def rise(self, worker: SimWorker, now: float) -> None:
        pass

    def tick(self, now: float) -> None:
        pass

    def _restore(self, number: int, queue: QueueType) -> None:
        self._lanes[queue].appendleft(number)
        self._engine.offer(_READERS[queue])
