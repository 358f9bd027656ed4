"""The workers of a snapshot, counted once for all rules of balancing. Costs O(workers + held)."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from morag_queue.core.lanes import queue_of
from morag_queue.core.levels import LEVELS, common_steps, snap
from morag_queue.core.model import Capability, QueueType, WorkerStatus
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.worker_status import SERVING, in_hands, status_in

from .state import Pool

WorkerKind: TypeAlias = tuple[tuple[str, ...], tuple[int, ...], Capability]
"""The queues that a worker reads, the levels that it polls, and what it is."""


_EMPTY = (0, 0.0)


@dataclass(frozen=True, slots=True)
class FleetCapacity:
    """`slots` and `idle` are of the workers in service that read a pool's queues, a hybrid's in both pools.

    `spare` and `spare_idle` are the slots of cpu workers that read cpu_standard: where work can be spilled to.
    `running` is how many seconds of work the GPU pool's slots still have before them. `polled` gives for each queue and
    level the one that all its readers poll. `unsafe` are the queues that a worker without a GPU reads, or may by the
    table of queues. `leaving` are the workers whose lanes have to be emptied, with the reason.
    """

    slots: Mapping[Pool, int]
    idle: Mapping[Pool, int]
    spare: int
    spare_idle: int
    running: float
    polled: Mapping[QueueType, tuple[int, ...]]
    unsafe: frozenset[QueueType]
    leaving: tuple[tuple[WorkerView, str], ...]


def pool_of(queue: QueueType, queues: Queues) -> Pool:
    return Pool.CPU if Capability.CPU in queues.of(queue).served_by else Pool.GPU


def fleet_capacity(
    snapshot: Snapshot, policy: Policy, queues: Queues, pace: Callable[[QueueType], float]
) -> FleetCapacity:
    """`pace` is how many seconds a task of a queue usually runs."""
    hands, lanes_of = _hands(snapshot, pace), snapshot.lanes_by_worker
    half_a_run = pace(QueueType.GPU_FALLBACK) / 2
    # Workers of one kind read the same queues: a fleet has a handful of kinds.
    slots: defaultdict[WorkerKind, int] = defaultdict(int)
    idle: defaultdict[WorkerKind, int] = defaultdict(int)
    running = 0.0
    leaving = []
    for view in snapshot.workers:
        info = view.info
        kind = info.queues, info.priority_steps, info.capability
        word, reason = _status(snapshot, view, policy)
        waiting = snapshot.waiting_count(info.worker) if info.worker in lanes_of else 0
        if word in SERVING:
            held, left = hands.get(info.incarnation, _EMPTY)
            busy = held if info.claims else in_hands(view, held)
            slots[kind] += info.slots
            idle[kind] += max(info.slots - busy - waiting, 0)
            if info.capability is not Capability.CPU:  # what has no owner record is in the middle of its run
                running += left + (busy - held) * half_a_run
        else:
            slots[kind] += 0
            if waiting and word in (WorkerStatus.DRAINING, WorkerStatus.OFFLINE):
                leaving.append((view, f"{info.worker} is {word.value}" + (f" ({reason})" if reason else "")))
    spare = [kind for kind in slots if kind[2] is Capability.CPU and QueueType.CPU_STANDARD.value in kind[0]]
    return FleetCapacity(
        slots=_by_pool(slots, queues),
        idle=_by_pool(idle, queues),
        spare=sum(slots[kind] for kind in spare),
        spare_idle=sum(idle[kind] for kind in spare),
        running=running,
        polled={queue: _polled({steps for reads, steps, _ in slots if queue.value in reads}) for queue in QueueType},
        unsafe=_unsafe({queue for reads, _, what in slots if what is Capability.CPU for queue in reads}, queues),
        leaving=tuple(leaving),
    )


def _by_pool(counts: Mapping[WorkerKind, int], queues: Queues) -> Mapping[Pool, int]:
    """A hybrid counts in both pools."""
    read = {pool: frozenset(one.value for one in QueueType if pool_of(one, queues) is pool) for pool in Pool}
    return {
        pool: sum(count for (reads, _, _), count in counts.items() if not its.isdisjoint(reads))
        for pool, its in read.items()
    }


def unsafe(snapshot: Snapshot, queues: Queues) -> frozenset[QueueType]:
    """The queues that a worker without a GPU reads, or may read by the table: nothing that needs one may enter."""
    blind = (view.info for view in snapshot.workers if view.info.capability is Capability.CPU)
    return _unsafe({queue for info in blind for queue in info.queues}, queues)


def _unsafe(without_gpu: Collection[str], queues: Queues) -> frozenset[QueueType]:
    return frozenset(one for one in QueueType if one.value in without_gpu or pool_of(one, queues) is Pool.CPU)


def _status(snapshot: Snapshot, view: WorkerView, policy: Policy) -> tuple[WorkerStatus, str]:
    """As `status_in`, at a third of the price for the usual worker: one that beats and that nobody took out."""
    beat = view.beat
    if view.cordon is None and beat is not None and not (beat.stopped or view.fenced):
        if snapshot.taken_at - beat.at <= policy.suspect_after_seconds:
            return WorkerStatus.ONLINE, ""
    elif beat is None and not view.fenced and snapshot.taken_at - view.info.started_at <= policy.offline_after_seconds:
        return WorkerStatus.SUSPECT, "has just registered"  # its first beat is on its way
    return status_in(snapshot, view, policy)


def _hands(snapshot: Snapshot, pace: Callable[[QueueType], float]) -> Mapping[str, tuple[int, float]]:
    """For each incarnation how many messages it holds, and how many seconds are left of their usual run."""
    now, hands, usual = snapshot.taken_at, dict[str, tuple[int, float]](), dict[str, float]()
    for one in snapshot.held:
        if (lane := one.lane) not in usual:
            usual[lane] = pace(queue_of(lane) or QueueType.GPU_FALLBACK)
        left = usual[lane] - (now - one.claimed_at)
        count, seconds = hands.get(one.incarnation, (0, 0.0))
        hands[one.incarnation] = (count + 1, seconds + left if left > 0 else seconds)
    return hands


def _polled(steps: Collection[tuple[int, ...]]) -> tuple[int, ...]:
    common = common_steps(steps)
    return tuple(snap(one, common) for one in LEVELS)
