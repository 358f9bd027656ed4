"""The capacity of a fleet, counted once for all balancing rules. The cost is O(workers + held messages)."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from morag_queue.core.lanes import queue_of
from morag_queue.core.model import Capability, QueueType, WorkerStatus
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.worker_status import SERVING, in_flight, status

from .state import Pool

WorkerKind: TypeAlias = tuple[tuple[str, ...], Capability]
"""The queues that a worker reads, and its capability. A fleet has few kinds."""

_NOTHING_HELD = (0, 0.0)


@dataclass(frozen=True, slots=True)
class FleetCapacity:
    """Slots of the workers in service, and the workers whose lanes must be emptied.

    slots, idle        all and idle slots, by pool; a hybrid counts in both pools
    spare, spare_idle  all and idle slots of CPU workers that read cpu_standard, the target of spilling
    running            remaining seconds of the work that runs on the GPU pool
    leaving            dead and draining workers with waiting work, each with the reason
    """

    slots: Mapping[Pool, int]
    idle: Mapping[Pool, int]
    spare: int
    spare_idle: int
    running: float
    leaving: tuple[tuple[WorkerView, str], ...]


def pool_of(queue: QueueType, queues: Queues) -> Pool:
    """Return the pool that serves a queue."""
    return Pool.CPU if Capability.CPU in queues.of(queue).served_by else Pool.GPU


def fleet_capacity(
    snapshot: Snapshot, policy: Policy, queues: Queues, pace: Callable[[QueueType], float]
) -> FleetCapacity:
    """Count the fleet. `pace` returns the usual run time of a queue's tasks in seconds."""
    held_by_run, lanes_of = _held_by_run(snapshot, pace), snapshot.lanes_by_worker
    half_a_run = pace(QueueType.GPU_FALLBACK) / 2
    slots: defaultdict[WorkerKind, int] = defaultdict(int)
    idle: defaultdict[WorkerKind, int] = defaultdict(int)
    running = 0.0
    leaving = []
    for view in snapshot.workers:
        info = view.info
        held, remaining = held_by_run.get(info.incarnation, _NOTHING_HELD)
        waiting = snapshot.waiting_count(info.worker) if info.worker in lanes_of else 0
        state, reason = status(view, held, snapshot.taken_at, policy, waiting_count=waiting)
        if state in SERVING:
            busy = held if info.claims else in_flight(view, held)
            kind = info.queues, info.capability
            slots[kind] += info.slots
            idle[kind] += max(info.slots - busy - waiting, 0)
            if info.capability is not Capability.CPU:  # a task without an owner record counts as half done
                running += remaining + (busy - held) * half_a_run
        elif waiting and state in (WorkerStatus.DRAINING, WorkerStatus.OFFLINE):
            leaving.append((view, f"{info.worker} is {state.value}" + (f" ({reason})" if reason else "")))
    spare = [kind for kind in slots if kind[1] is Capability.CPU and QueueType.CPU_STANDARD.value in kind[0]]
    return FleetCapacity(
        slots=_by_pool(slots, queues),
        idle=_by_pool(idle, queues),
        spare=sum(slots[kind] for kind in spare),
        spare_idle=sum(idle[kind] for kind in spare),
        running=running,
        leaving=tuple(leaving),
    )


def _by_pool(counts: Mapping[WorkerKind, int], queues: Queues) -> Mapping[Pool, int]:
    queues_of = {pool: frozenset(queue.value for queue in QueueType if pool_of(queue, queues) is pool) for pool in Pool}
    return {
        pool: sum(count for (reads, _), count in counts.items() if not names.isdisjoint(reads))
        for pool, names in queues_of.items()
    }


def _held_by_run(snapshot: Snapshot, pace: Callable[[QueueType], float]) -> Mapping[str, tuple[int, float]]:
    """Return, for each incarnation, (number of held messages, remaining seconds of their usual run time)."""
    now, found, usual = snapshot.taken_at, dict[str, tuple[int, float]](), dict[str, float]()
    for message in snapshot.held:
        if (lane := message.lane) not in usual:
            usual[lane] = pace(queue_of(lane) or QueueType.GPU_FALLBACK)
        remaining = usual[lane] - (now - message.claimed_at)
        count, seconds = found.get(message.incarnation, _NOTHING_HELD)
        found[message.incarnation] = (count + 1, seconds + remaining if remaining > 0 else seconds)
    return found
