"""The workers of a snapshot, counted once for all rules of balancing. Costs O(workers + held)."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from .lanes import queue_of
from .levels import LEVELS, common_steps, snap
from .memory import Pool
from .model import Capability, QueueType, WorkerStatus
from .policy import Policy, Queues
from .snapshot import Snapshot, WorkerView
from .status import SERVING, in_hands, status_in


@dataclass(frozen=True, slots=True)
class Census:
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


def census(snapshot: Snapshot, policy: Policy, queues: Queues, pace: Callable[[QueueType], float]) -> Census:
    """`pace` is how many seconds a task of a queue usually runs."""
    hands = _hands(snapshot, pace)
    read = {pool: frozenset(one.value for one in QueueType if pool_of(one, queues) is pool) for pool in Pool}
    slots, idle = dict.fromkeys(Pool, 0), dict.fromkeys(Pool, 0)
    steps: defaultdict[tuple[str, ...], set[tuple[int, ...]]] = defaultdict(set)
    without_gpu: set[str] = set()
    leaving = []
    spare, spare_idle, running = 0, 0, 0.0
    for view in snapshot.workers:
        info = view.info
        name, reads, its_slots, has_gpu = info.worker, info.queues, info.slots, info.capability is not Capability.CPU
        if not has_gpu:
            without_gpu.update(reads)
        steps[reads].add(info.priority_steps)
        word, reason = _status(snapshot, view, policy)
        if word in SERVING:
            held, left = hands.get(info.incarnation, (0, 0.0))
            busy = in_hands(view, held)
            free = max(its_slots - busy - snapshot.waiting_count(name), 0)
            for pool, its_queues in read.items():
                if not its_queues.isdisjoint(reads):
                    slots[pool] += its_slots
                    idle[pool] += free
            if has_gpu:  # what has no owner record is taken to be in the middle of its run
                running += left + (busy - held) * pace(QueueType.GPU_FALLBACK) / 2
            elif QueueType.CPU_STANDARD.value in reads:
                spare, spare_idle = spare + its_slots, spare_idle + free
        elif word in (WorkerStatus.DRAINING, WorkerStatus.OFFLINE) and snapshot.waiting_count(name):
            leaving.append((view, f"{name} is {word.value}" + (f" ({reason})" if reason else "")))
    return Census(
        slots=slots,
        idle=idle,
        spare=spare,
        spare_idle=spare_idle,
        running=running,
        polled={queue: _polled(queue, steps) for queue in QueueType},
        unsafe=_unsafe(without_gpu, queues),
        leaving=tuple(leaving),
    )


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


def _polled(queue: QueueType, steps: Mapping[tuple[str, ...], Collection[tuple[int, ...]]]) -> tuple[int, ...]:
    common = common_steps({one for reads, polled in steps.items() if queue.value in reads for one in polled})
    return tuple(snap(one, common) for one in LEVELS)
