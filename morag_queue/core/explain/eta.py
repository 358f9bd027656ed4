"""The expected start of a waiting task: a simulation of the lanes with measured run times.

Each free slot takes the next message that its worker's claim would take: level by level, and inside a level the
worker's own lanes before the shared ones. No task arrives or fails in the simulation. It has at most about `_STEPS`
steps: with a longer backlog, several messages count as one whose run time is their sum.
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
_DEVIATIONS = 2.0  # half width of the interval in standard deviations: about 95 % of a normal distribution
_REACTION_S = 2.0  # a heartbeat is up to 2 s old, and a worker needs a moment between two tasks

# (lane, level): one Redis list.
ListId = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RunTime:
    """Run time of the tasks of one queue: mean and standard deviation in seconds."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, window: Window, totals: Totals, estimated_minutes: float | None) -> "RunTime":
        """Return the run time measured in the window, else of all time, else as estimated, else `ASSUMED_RUN_S`.

        A value that is not from the window has a deviation of half its mean.
        """
        mean = window.mean_run_seconds
        if mean is not None:
            count = sum(window.runs.values())
            variance = sum(n * (seconds_of(index) - mean) ** 2 for index, n in window.runs.items()) / count
            return cls(mean, max(sqrt(variance), mean * RELATIVE_ERROR))
        mean = totals.mean_run_seconds or (estimated_minutes or 0.0) * 60 or ASSUMED_RUN_S
        return cls(mean, mean / 2)


class ExpectedStart(Frozen):
    """Times are seconds since the epoch. `ahead` is the number of messages that are taken before.

    `by_worker` has the start on each worker, if those that are free earlier do not take it.
    """

    start: float
    earliest: float
    latest: float
    ahead: int
    by_worker: Mapping[str, float] = {}


def expected_start(
    snapshot: Snapshot, policy: Policy, runs: Mapping[QueueType, RunTime], lane: str, level: int, depth: int
) -> ExpectedStart | None:
    """Estimate the start of the message at `depth` (1 is next) in the list of a lane and level.

    Return None if no worker in service will ever take it.
    """
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
    remaining = {list_id: -(-length // unit) for list_id, length in lengths.items()}
    remaining[target] += behind  # the message is taken when only those behind it remain
    slots = _reading_slots(snapshot, policy, runs, lengths)
    readers = {worker for _, worker, _, lists in slots if target in lists}
    heapify(slots)
    taken, ahead = 0, 0
    starts: dict[str, float] = {}  # in the order of time
    while slots and starts.keys() != readers:
        free_in, worker, number, lists = heappop(slots)
        source = next((list_id for list_id in lists if remaining.get(list_id, 0)), None)
        if source is None:
            continue
        if source == target and remaining[source] == behind + 1:
            ahead = ahead if starts else taken
            starts.setdefault(worker, free_in)  # the message stays, for the worker that would take it next
            continue
        remaining[source] -= 1
        taken += 1
        heappush(slots, (free_in + unit * runs[queue_of[source[0]]].mean, worker, number, lists))
    if not starts:
        return None
    first = _with_margin(snapshot.taken_at, next(iter(starts.values())), runs[queue_of[lane]], unit, ahead * unit)
    by_worker = {worker: snapshot.taken_at + seconds for worker, seconds in starts.items()}
    return first.model_copy(update={"by_worker": by_worker})


def _with_margin(now: float, seconds: float, run: RunTime, unit: int, ahead: int) -> ExpectedStart:
    """Add the margin: the deviation of a sum grows with the square root of its terms; one more is already running."""
    terms = seconds / run.mean if run.mean > 0 else 0.0
    spread = _DEVIATIONS * run.deviation * sqrt(terms + 1) if seconds > 0 else 0.0
    margin = spread + (unit - 1) * run.mean
    return ExpectedStart(
        start=now + seconds,
        earliest=now + max(seconds - margin, 0.0),
        latest=now + seconds + margin + _REACTION_S,
        ahead=ahead,
    )


def _reading_slots(
    snapshot: Snapshot, policy: Policy, runs: Mapping[QueueType, RunTime], lengths: Mapping[ListId, int]
) -> list[tuple[float, str, int, Sequence[ListId]]]:
    """Return every slot in service: (seconds until free, worker, slot number, its lists in reading order)."""
    slots: list[tuple[float, str, int, Sequence[ListId]]] = []
    shared: dict[tuple[ListId, ...], tuple[ListId, ...]] = {}  # equal tuples are stored once: fleets are large
    for view in snapshot.workers:
        status, _ = status_in(snapshot, view, policy)
        if status not in SERVING and status is not WorkerStatus.CORDONED:
            continue
        in_order = reading_order(view, own_only=status is WorkerStatus.CORDONED)
        lists = tuple(list_id for list_id in in_order if list_id in lengths)
        lists = shared.setdefault(lists, lists)
        busy = _busy_seconds(snapshot, view, runs)
        free = [*busy, *[0.0] * (max(view.info.slots, 1) - len(busy))]
        slots += ((seconds, view.worker, number, lists) for number, seconds in enumerate(free))
    return slots


def reading_order(view: WorkerView, *, own_only: bool = False) -> Iterable[ListId]:
    """Return the lists that a worker reads, in the order of the claim script."""
    queues = [queue for queue in QueueType if queue.value in view.info.queues]
    names = [lane_name(queue, view.info.worker) for queue in queues]
    names += [] if own_only else [queue.value for queue in queues]
    return ((name, step) for step in view.info.priority_steps for name in names)


def _busy_seconds(snapshot: Snapshot, view: WorkerView, runs: Mapping[QueueType, RunTime]) -> list[float]:
    """Return the seconds until each used slot is free.

    A task that has run for longer than the mean (or nearly so) is assumed to need another fifth of the mean.
    """
    slots = max(view.info.slots, 1)
    queue_of = {lane.lane: lane.queue for lane in snapshot.lanes}
    longest_mean = max((run.mean for run in runs.values()), default=0.0)
    messages = snapshot.held_by_worker.get(view.info.worker, ())
    held = [message for message in messages if message.incarnation == view.info.incarnation]
    ends = [0.0] * slots
    for message in sorted(held, key=lambda message: message.claimed_at):
        queue = queue_of.get(message.lane)
        mean = longest_mean if queue is None else runs[queue].mean
        soonest = ends.index(min(ends))  # prefetched tasks wait for the slot that is free first
        is_running = ends[soonest] == 0.0
        elapsed = snapshot.taken_at - message.claimed_at
        ends[soonest] += max(mean - elapsed, mean / 5) if is_running else mean
    unrecorded = in_flight(view, len(held)) - len(held)  # reported by a worker without the claim script
    for _ in range(min(unrecorded, slots)):
        ends[ends.index(min(ends))] += longest_mean
    return [seconds for seconds in ends if seconds > 0.0]
