"""The GPU safety rule: work that requires a GPU never enters a queue that a worker without one may read.

Every command and every part of the loop uses this rule: submit, pins, moves, retries, undo, balancing, drain, failover,
sweep and plan files. `--allow-cpu`, with a worker or a queue that a person names, is the only override; `--force` is
none. The rule covers the lanes of single workers too, because a drain returns such a lane to the shared lane of its
queue.
"""

from collections.abc import Container, Mapping, Sequence

from morag_queue.core.enums import Capability, QueueType
from morag_queue.core.lanes import queue_of
from morag_queue.core.policy import Queues

_NAMED_WORKERS = 3


def unsafe_queues(cpu_readers: Mapping[str, Sequence[str]], queues: Queues) -> Mapping[QueueType, str]:
    """Return the queues closed to work that requires a GPU, each with the reason.

    `cpu_readers` lists, by queue, the registered workers without a GPU that read it. Workers out of service count too:
    one may come back while the task still waits.
    """
    reasons = {queue: _reason(queue, cpu_readers.get(queue.value, ()), queues) for queue in QueueType}
    return {queue: reason for queue, reason in reasons.items() if reason}


def is_unsafe_lane(lane: str, unsafe: Container[QueueType]) -> bool:
    """Return whether work that requires a GPU must stay out of this lane."""
    queue = queue_of(lane)
    return queue is not None and queue in unsafe


def _reason(queue: QueueType, workers: Sequence[str], queues: Queues) -> str:
    if Capability.CPU in queues.of(queue).served_by:
        return f"{queue} is served by cpu workers"
    if not workers:
        return ""
    more = f" and {len(workers) - _NAMED_WORKERS} more" if len(workers) > _NAMED_WORKERS else ""
    return f"{queue} is read by {', '.join(sorted(workers)[:_NAMED_WORKERS])}{more}, without a GPU"
