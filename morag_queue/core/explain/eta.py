"""When a waiting task will start: the lanes played forward with the run times that were measured.

Each slot, when it is free, takes the next message that its worker's claim would take: level by level, in a level the
worker's own lanes before the shared ones. Nothing new arrives in this play, and nothing fails. A play is at most
`_STEPS` messages long: from a longer line, several messages count as one that takes as long as all of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import sqrt

from morag_queue.core.histogram import RELATIVE_ERROR, Window, seconds_of
from morag_queue.core.lanes import lane as lane_name
from morag_queue.core.model import Frozen, QueueType, WorkerStatus
from morag_queue.core.policy import Policy
from morag_queue.core.snapshot import Snapshot, Totals, WorkerView
from morag_queue.core.stats import ASSUMED_RUN_S
from morag_queue.core.worker_status import SERVING, in_flight, status_in

_STEPS = 50_000


_DEVIATIONS = 2.0


_REACTION_S = 2.0  # a figure is a beat old, and a worker needs a moment between two tasks


ListId = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RunTime:
    """How long tasks of one queue run: mean and standard deviation in seconds."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, window: Window, totals: Totals, estimated_minutes: float | None) -> "RunTime":
        """As measured in the window, else ever since; else as estimated, or assumed, and then it may be off by half."""
        mean = window.mean_run_seconds
        if mean is not None:
            count = sum(window.runs.values())
            variance = sum(n * (seconds_of(index) - mean) ** 2 for index, n in window.runs.items()) / count
            return cls(mean, max(sqrt(variance), mean * RELATIVE_ERROR))
        mean = totals.mean_run_seconds or (estimated_minutes or 0.0) * 60 or ASSUMED_RUN_S
        return cls(mean, mean / 2)


class ExpectedStart(Frozen):
    """Seconds since the epoch. `ahead` is how many messages will be taken before it."""

    start: float
    earliest: float
    latest: float
    ahead: int


def expected_start(
    snapshot: Snapshot, policy: Policy, runs: Mapping[QueueType, RunTime], lane: str, level: int, depth: int
) -> ExpectedStart | None:
    """For the message at `depth` (1 is next) of one list. None where, as things are, nobody will ever take it."""
    lengths = {
        (view.lane, n): length
        for view in snapshot.lanes
        if view.queue not in snapshot.paused
        for n, length in enumerate(view.lengths)
        if length
    }
    target = (lane, level)
    queue_of = {view.lane: view.queue for view in snapshot.lanes}
    if target not in lengths:
        return None
    behind = max(lengths[target] - depth, 0)
    lengths[target] = depth
    unit = max(1, -(-sum(lengths.values()) // _STEPS))
    remaining = {one: -(-length // unit) for one, length in lengths.items()}
    remaining[target] += behind  # it is taken when only those behind it are left
    slots = _slots(snapshot, policy, runs, lengths)
    heapify(slots)
    ahead = 0
    while slots:
        free_in, order, number, lists = heappop(slots)
        place = next((one for one in lists if remaining.get(one, 0)), None)
        if place is None:
            continue
        remaining[place] -= 1
        if place == target and remaining[place] == behind:
            return _around(snapshot.taken_at, free_in, runs[queue_of[lane]], unit, ahead * unit)
        ahead += 1
        heappush(slots, (free_in + unit * runs[queue_of[place[0]]].mean, order, number, lists))
    return None


def _around(now: float, seconds: float, run: RunTime, unit: int, ahead: int) -> ExpectedStart:
    """The deviation of a sum grows by the square root of its terms; the first one is in the middle of its run."""
    terms = seconds / run.mean if run.mean > 0 else 0.0
    spread = _DEVIATIONS * run.deviation * sqrt(terms + 1) if seconds > 0 else 0.0
    margin = spread + (unit - 1) * run.mean
    return ExpectedStart(
        start=now + seconds,
        earliest=now + max(seconds - margin, 0.0),
        latest=now + seconds + margin + _REACTION_S,
        ahead=ahead,
    )


def _slots(
    snapshot: Snapshot, policy: Policy, runs: Mapping[QueueType, RunTime], lengths: Mapping[ListId, int]
) -> list[tuple[float, int, int, Sequence[ListId]]]:
    """(free in so many seconds, own number, slot, the lists it reads in their order) of every slot in service."""
    slots: list[tuple[float, int, int, Sequence[ListId]]] = []
    kept: dict[tuple[ListId, ...], tuple[ListId, ...]] = {}
    for order, view in enumerate(sorted(snapshot.workers, key=lambda one: one.info.worker)):
        word, _ = status_in(snapshot, view, policy)
        if word not in SERVING and word is not WorkerStatus.CORDONED:
            continue
        lists = tuple(one for one in reading_order(view, own_only=word is WorkerStatus.CORDONED) if one in lengths)
        lists = kept.setdefault(lists, lists)
        busy = _busy(snapshot, view, runs)
        free = [*busy, *[0.0] * (max(view.info.slots, 1) - len(busy))]
        slots += ((seconds, order, number, lists) for number, seconds in enumerate(free))
    return slots


def reading_order(view: WorkerView, *, own_only: bool = False) -> Iterable[ListId]:
    """The lists that a worker reads, as the claim asks for them."""
    queues = [queue for queue in QueueType if queue.value in view.info.queues]
    names = [lane_name(queue, view.info.worker) for queue in queues]
    names += [] if own_only else [queue.value for queue in queues]
    return ((name, step) for step in view.info.priority_steps for name in names)


def _busy(snapshot: Snapshot, view: WorkerView, runs: Mapping[QueueType, RunTime]) -> list[float]:
    """When its slots in use are free: one that has run longer than the mean is taken to need a fifth of it yet."""
    slots = max(view.info.slots, 1)
    queue_of = {lane.lane: lane.queue for lane in snapshot.lanes}
    usual = max((run.mean for run in runs.values()), default=0.0)
    held = [
        one for one in snapshot.held_by_worker.get(view.info.worker, ()) if one.incarnation == view.info.incarnation
    ]
    ends = [0.0] * slots
    for one in sorted(held, key=lambda one: one.claimed_at):
        queue = queue_of.get(one.lane)
        mean = usual if queue is None else runs[queue].mean
        soonest = ends.index(min(ends))  # what was taken beyond the slots waits for one of them
        began = ends[soonest] == 0.0
        ends[soonest] += max(mean - (snapshot.taken_at - one.claimed_at), mean / 5) if began else mean
    unseen = in_flight(view, len(held)) - len(held)
    for _ in range(min(unseen, slots)):
        ends[ends.index(min(ends))] += usual
    return [seconds for seconds in ends if seconds > 0.0]
