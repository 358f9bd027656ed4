"""Who reads a queue's shared lane, and what follows: the levels that are polled, and who must not meet its work."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from morag_queue.core.levels import LEVELS, common_steps, snap
from morag_queue.core.model import Capability, QueueType
from morag_queue.core.policy import Queues
from morag_queue.core.snapshot import Snapshot

from .feasibility import WorkerLoad

_NAMED_AT_MOST = 3


@dataclass(frozen=True, slots=True)
class LaneReaders:
    """`polled`: for each level, the one that all the readers of a queue poll.

    `unsafe`: the queues that work in need of a GPU must not enter, and why. All registered workers count, in service
    or not: one that is away may come back while the task still waits.
    """

    polled: Mapping[QueueType, tuple[int, ...]]
    unsafe: Mapping[QueueType, str]


def lane_readers(loads: Iterable[WorkerLoad], queues: Queues) -> LaneReaders:
    by_queue: dict[QueueType, list[WorkerLoad]] = {queue: [] for queue in QueueType}
    for load in loads:
        for queue in load.queues:
            by_queue[queue].append(load)
    unsafe = {queue: _why_unsafe(queue, ones, queues) for queue, ones in by_queue.items()}
    return LaneReaders(
        polled={queue: polled_levels(ones) for queue, ones in by_queue.items()},
        unsafe={queue: why for queue, why in unsafe.items() if why},
    )


def polled_levels(loads: Iterable[WorkerLoad]) -> tuple[int, ...]:
    """For each level, the one where all these workers look for it."""
    return _polled(common_steps(load.priority_steps for load in loads))


@cache
def _polled(steps: tuple[int, ...]) -> tuple[int, ...]:
    """Kept, for a fleet knows one or two kinds of steps and a batch that is bound early asks for each of its tasks."""
    return tuple(snap(level, steps) for level in LEVELS)


def fallbacks(queue: QueueType, queues: Queues) -> tuple[QueueType, ...]:
    """The queue, what it falls back to, and so on, up to the first that was there before."""
    chain = [queue]
    while (following := queues.of(chain[-1]).fallback) not in chain:
        chain.append(following)
    return tuple(chain)


def is_unsafe(snapshot: Snapshot, queue: QueueType, queues: Queues) -> bool:
    """Whether work in need of a GPU must not enter a queue; as `LaneReaders.unsafe`, for a single question."""
    return Capability.CPU in queues.of(queue).served_by or any(
        queue.value in view.info.queues and not view.info.capability.has_gpu for view in snapshot.workers
    )


def _why_unsafe(queue: QueueType, loads: list[WorkerLoad], queues: Queues) -> str:
    if Capability.CPU in queues.of(queue).served_by:
        return f"{queue} is served by cpu workers"
    names = sorted(load.worker for load in loads if not load.has_gpu)
    if not names:
        return ""
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return f"{queue} is read by {', '.join(names[:_NAMED_AT_MOST])}{more}, without a GPU"
