"""The readers of each queue: the levels that all of them poll, and the queues closed to GPU work because of them."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from morag_queue.core.lanes import queue_of
from morag_queue.core.levels import common_steps, readable
from morag_queue.core.model import QueueType
from morag_queue.core.policy import Queues
from morag_queue.core.snapshot import Snapshot

from .feasibility import WorkerLoad
from .gpu_safety import unsafe_queues


@dataclass(frozen=True, slots=True)
class LaneReaders:
    """The readers of each queue. All registered workers count, in service or not.

    steps      the levels that all readers of the queue poll, see `levels`
    unsafe     the queues closed to work that requires a GPU, with the reason; see `gpu_safety`
    gpu_queue  the first queue open to work that requires a GPU; None when every one is closed
    """

    steps: Mapping[QueueType, tuple[int, ...]]
    unsafe: Mapping[QueueType, str]
    gpu_queue: QueueType | None

    def readable(self, level: int, lane: str) -> int:
        """Return the level for a message that goes to this lane from one of that level."""
        queue = queue_of(lane)
        return level if queue is None else readable(level, self.steps[queue])


def lane_readers(loads: Iterable[WorkerLoad], queues: Queues, steps: Sequence[int]) -> LaneReaders:
    """Return the readers among these workers; `steps` are those of the snapshot."""
    return _readers(((load.worker, load.queues, load.priority_steps, load.has_gpu) for load in loads), queues, steps)


def readers_in(snapshot: Snapshot, queues: Queues) -> LaneReaders:
    """Return the readers among the workers of a snapshot."""
    infos = (view.info for view in snapshot.workers)
    return _readers(
        ((info.worker, info.queues, info.priority_steps, info.capability.has_gpu) for info in infos), queues,
        snapshot.steps,
    )  # fmt: skip


def steps_of(polled: Sequence[int] | None, steps: Sequence[int]) -> tuple[int, ...]:
    """Return the levels for the lane of one worker, by the levels that it polls; None for an unknown worker."""
    return common_steps([] if polled is None else [polled], steps)


def fallbacks(queue: QueueType, queues: Queues) -> tuple[QueueType, ...]:
    """Return the queue and the chain of its fallbacks, until a queue repeats."""
    chain = [queue]
    while (following := queues.of(chain[-1]).fallback) not in chain:
        chain.append(following)
    return tuple(chain)


def _readers(
    workers: Iterable[tuple[str, Collection[str], tuple[int, ...], bool]], queues: Queues, allowed: Sequence[int]
) -> LaneReaders:
    """Group the workers, given as (name, queues, priority steps, whether it has a GPU), by queue."""
    steps: defaultdict[str, set[tuple[int, ...]]] = defaultdict(set)
    cpu_readers: defaultdict[str, list[str]] = defaultdict(list)
    for worker, reads, polls, has_gpu in workers:
        for queue in reads:
            steps[queue].add(polls)
            if not has_gpu:
                cpu_readers[queue].append(worker)
    unsafe = unsafe_queues(cpu_readers, queues)
    return LaneReaders(
        steps={queue: common_steps(steps[queue.value], allowed) for queue in QueueType},
        unsafe=unsafe,
        gpu_queue=next((queue for queue in fallbacks(QueueType.GPU_PRIORITY, queues) if queue not in unsafe), None),
    )
