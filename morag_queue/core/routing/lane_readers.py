"""The readers of each queue: the levels that all of them poll, and the queues closed to GPU work because of them."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from morag_queue.core.levels import LEVELS, common_steps, snap
from morag_queue.core.model import QueueType
from morag_queue.core.policy import Queues
from morag_queue.core.snapshot import Snapshot

from .feasibility import WorkerLoad
from .gpu_safety import unsafe_queues


@dataclass(frozen=True, slots=True)
class LaneReaders:
    """The readers of each queue. All registered workers count, in service or not.

    polled     for each queue and level, the level that all readers of the queue poll for it
    unsafe     the queues closed to work that requires a GPU, with the reason; see `gpu_safety`
    gpu_queue  the first queue open to work that requires a GPU; None when every one is closed
    """

    polled: Mapping[QueueType, tuple[int, ...]]
    unsafe: Mapping[QueueType, str]
    gpu_queue: QueueType | None


def lane_readers(loads: Iterable[WorkerLoad], queues: Queues) -> LaneReaders:
    """Return the readers among these workers."""
    return _readers(((load.worker, load.queues, load.priority_steps, load.has_gpu) for load in loads), queues)


def readers_in(snapshot: Snapshot, queues: Queues) -> LaneReaders:
    """Return the readers among the workers of a snapshot."""
    infos = (view.info for view in snapshot.workers)
    return _readers(
        ((info.worker, info.queues, info.priority_steps, info.capability.has_gpu) for info in infos), queues
    )


def polled_levels(loads: Iterable[WorkerLoad]) -> tuple[int, ...]:
    """Return for each level the level that all these workers poll for it."""
    return _polled(frozenset(load.priority_steps for load in loads))


def fallbacks(queue: QueueType, queues: Queues) -> tuple[QueueType, ...]:
    """Return the queue and the chain of its fallbacks, until a queue repeats."""
    chain = [queue]
    while (following := queues.of(chain[-1]).fallback) not in chain:
        chain.append(following)
    return tuple(chain)


def _readers(workers: Iterable[tuple[str, Collection[str], tuple[int, ...], bool]], queues: Queues) -> LaneReaders:
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
        polled={queue: _polled(frozenset(steps[queue.value])) for queue in QueueType},
        unsafe=unsafe,
        gpu_queue=next((queue for queue in fallbacks(QueueType.GPU_PRIORITY, queues) if queue not in unsafe), None),
    )


@cache
def _polled(steps: frozenset[tuple[int, ...]]) -> tuple[int, ...]:
    """Cached: a fleet has one or two kinds of steps, and early binding needs them for each task of a batch."""
    common = common_steps(steps)
    return tuple(snap(level, common) for level in LEVELS)
