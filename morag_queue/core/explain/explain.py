"""Why a task is where it is: one reason out of a closed list, a sentence, who could take it, and when it will start.

The first reason that holds, in the order in which an operator could do something about it: the task's own end, the
hands it is in, a pause, a time before which it must not run, its lane, the fleet, and last those before it in line.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from morag_queue.core.lanes import split
from morag_queue.core.model import HeldMessage, QueueType, WorkerStatus
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.feasibility import Feasibility, Score, WorkerLoad, worker_loads
from morag_queue.core.routing.score_table import ScoreTable, WorkClass
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.task import Task
from morag_queue.core.worker_status import in_flight, status_in

from .eta import ExpectedStart, RunTime, expected_start, reading_order


class ReasonCode(StrEnum):
    """Why a task is in the state it is in. Scripts may rely on these words; the sentence beside them may change."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    QUARANTINED = "QUARANTINED"
    RUNNING = "RUNNING"
    RESERVED = "RESERVED"
    HOLDER_OFFLINE = "HOLDER_OFFLINE"
    NOT_ON_BROKER = "NOT_ON_BROKER"
    QUEUE_PAUSED = "QUEUE_PAUSED"
    ETA_NOT_REACHED = "ETA_NOT_REACHED"
    NO_CAPABLE_WORKER = "NO_CAPABLE_WORKER"
    LANE_CORDONED = "LANE_CORDONED"
    ALL_CAPABLE_OFFLINE = "ALL_CAPABLE_OFFLINE"
    LEVEL_NOT_POLLED = "LEVEL_NOT_POLLED"
    BEHIND_PRIORITY = "BEHIND_PRIORITY"
    BEHIND_EARLIER = "BEHIND_EARLIER"
    ALL_CAPABLE_BUSY = "ALL_CAPABLE_BUSY"
    ABOUT_TO_START = "ABOUT_TO_START"


MEANING: Mapping[ReasonCode, str] = {
    ReasonCode.COMPLETED: "it has ended well",
    ReasonCode.FAILED: "it ended with an error",
    ReasonCode.CANCELLED: "it was cancelled",
    ReasonCode.QUARANTINED: "it was set aside after it was taken back from dead workers too often",
    ReasonCode.RUNNING: "a worker runs it",
    ReasonCode.RESERVED: "a worker has taken it, and runs others first",
    ReasonCode.HOLDER_OFFLINE: "a worker that is no longer there has it: a failover takes it back",
    ReasonCode.NOT_ON_BROKER: "the ledger knows it as open, the broker has no message of it: a sweep sends it again",
    ReasonCode.QUEUE_PAUSED: "its queue is paused",
    ReasonCode.ETA_NOT_REACHED: "it must not run before a time that is still to come",
    ReasonCode.NO_CAPABLE_WORKER: "no registered worker could take it",
    ReasonCode.LANE_CORDONED: "all who could take it were taken out of service",
    ReasonCode.ALL_CAPABLE_OFFLINE: "all who could take it are offline, silent or out of service",
    ReasonCode.LEVEL_NOT_POLLED: "nobody looks into the list of its level",
    ReasonCode.BEHIND_PRIORITY: "more urgent work is before it",
    ReasonCode.BEHIND_EARLIER: "work that came earlier is before it",
    ReasonCode.ALL_CAPABLE_BUSY: "it is the next, and all who could take it are busy",
    ReasonCode.ABOUT_TO_START: "a worker is free for it",
}


# Queued tasks for which a time can be told: all that they wait for is their turn.
_IN_LINE = frozenset({
    ReasonCode.BEHIND_PRIORITY, ReasonCode.BEHIND_EARLIER, ReasonCode.ALL_CAPABLE_BUSY, ReasonCode.ABOUT_TO_START,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Explanation:
    """`workers` is best first; `expected` is None for what is not in line, and where nobody will ever take it."""

    code: ReasonCode
    reason: str
    workers: tuple[Score, ...] = ()
    expected: ExpectedStart | None = None


def explain(
    task: Task, snapshot: Snapshot, policy: Policy, queues: Queues, runs: Mapping[QueueType, RunTime]
) -> Explanation:
    """Explains one task on a picture of the fleet. `runs` has all queues."""
    if task.has_ended:
        return _ended(task)
    if not task.is_on_broker:
        reason = f"{MEANING[ReasonCode.NOT_ON_BROKER]}; `morag-queue failover --dead` sends it again"
        return Explanation(ReasonCode.NOT_ON_BROKER, reason)
    if task.claimed_at is not None:
        return _held(task, snapshot, policy)
    workers = _scores(task, snapshot, policy, queues)
    code, reason = _waits(task, snapshot, policy, workers)
    expected = None
    if code in _IN_LINE and task.level is not None and task.depth is not None:
        expected = expected_start(snapshot, policy, runs, task.lane, task.level, task.depth)
    return Explanation(code, reason, workers, expected)


def _ended(task: Task) -> Explanation:
    code = ReasonCode(task.state.name)
    by = f" on {task.worker}" if task.worker else ""
    error = f": {task.error}" if task.error else ""
    took = f" after {task.run_seconds:.1f} s" if task.run_seconds is not None else ""
    return Explanation(code, f"{MEANING[code]}{by}{took}{error}")


def _held(task: Task, snapshot: Snapshot, policy: Policy) -> Explanation:
    """In somebody's hands. Who runs what is not written down: a worker runs what it took first, in all its slots."""
    now, worker = snapshot.taken_at, str(task.worker)
    view = snapshot.worker_by_id.get(worker)
    word, why = status_in(snapshot, view, policy) if view is not None else (WorkerStatus.OFFLINE, "is not registered")
    if word is WorkerStatus.OFFLINE:
        reason = f"{worker} has it and is offline ({why}): morag-queue failover {worker} takes it back"
        return Explanation(ReasonCode.HOLDER_OFFLINE, reason)
    if task.eta_at is not None and task.eta_at > now:
        reason = f"{worker} keeps it until its time comes, in {_span(task.eta_at - now)}"
        return Explanation(ReasonCode.ETA_NOT_REACHED, reason, expected=_at(task.eta_at))
    held = snapshot.held_by_worker.get(worker, ())
    before = sum(_order(one) < (task.claimed_at or 0.0, task.task_id) for one in held)
    slots = max(view.info.slots, 1) if view is not None else 1
    if before >= slots:
        reason = f"{worker} has taken it and runs {slots} other{'s' if slots > 1 else ''} first"
        return Explanation(ReasonCode.RESERVED, reason)
    since = now - (task.claimed_at or now)
    return Explanation(ReasonCode.RUNNING, f"{worker} has had it for {_span(since)}")


def _order(held: HeldMessage) -> tuple[float, str]:
    return held.claimed_at, held.task_id


def _at(when: float) -> ExpectedStart:
    return ExpectedStart(start=when, earliest=when, latest=when, ahead=0)


def _scores(task: Task, snapshot: Snapshot, policy: Policy, queues: Queues) -> tuple[Score, ...]:
    """Of the lane's own worker, or of all for a shared lane."""
    if task.queue is None:
        return ()
    seated: Iterable[WorkerLoad] = worker_loads(snapshot, policy).values()
    _, owner = split(task.lane)
    if owner is not None:
        seated = [seat for seat in seated if seat.worker == owner]
    work = WorkClass(task.requires, task.content_type, 0.0)
    scores = ScoreTable(seated, task.queue, work, policy, queues, None).scores(task.estimated_duration or 0.0)
    return scores if owner is None else tuple(_in_own_lane(one, snapshot) for one in scores)


def _in_own_lane(score: Score, snapshot: Snapshot) -> Score:
    """A cordoned worker finishes its own lane, and what waits there does not keep it busy."""
    if score.verdict not in (Feasibility.CORDONED, Feasibility.FIT, Feasibility.FULL):
        return score
    view = snapshot.worker_by_id[score.worker]
    full = in_flight(view, snapshot.held_count(view)) >= max(view.info.slots, 1)
    return score.model_copy(update={"verdict": Feasibility.FULL if full else Feasibility.FIT})


_UNABLE = (Feasibility.NO_GPU, Feasibility.CONTENT_TYPE, Feasibility.MEMORY, Feasibility.NOT_SERVED)


_AWAY = (Feasibility.OFFLINE, Feasibility.SUSPECT)


_OUT = (Feasibility.CORDONED, Feasibility.DRAINING, Feasibility.DRAINED)


def _waits(task: Task, snapshot: Snapshot, policy: Policy, workers: tuple[Score, ...]) -> tuple[ReasonCode, str]:
    now = snapshot.taken_at
    if task.queue is not None and task.queue in snapshot.paused:
        return ReasonCode.QUEUE_PAUSED, f"{task.queue} is paused: morag-queue resume {task.queue} lets it go on"
    if task.eta_at is not None and task.eta_at > now:
        return ReasonCode.ETA_NOT_REACHED, f"it must not run before its time comes, in {_span(task.eta_at - now)}"
    able = [one for one in workers if one.verdict not in _UNABLE]
    told = _counted(workers)
    if not able:
        return ReasonCode.NO_CAPABLE_WORKER, f"no worker could take it from {task.lane} ({told})"
    if not any(one.verdict in (Feasibility.FIT, Feasibility.FULL) for one in able):
        if all(one.verdict in _OUT for one in able):
            return ReasonCode.LANE_CORDONED, f"all who read {task.lane} are out of service ({told})"
        return ReasonCode.ALL_CAPABLE_OFFLINE, f"all who could take it from {task.lane} are away ({told})"
    views = [snapshot.worker_by_id[one.worker] for one in able if one.verdict in (Feasibility.FIT, Feasibility.FULL)]
    reading = [view for view in views if task.level in view.info.priority_steps]
    if not reading:
        return ReasonCode.LEVEL_NOT_POLLED, f"nobody looks at level {task.level} of {task.lane}: see `doctor`"
    return _in_line(task, snapshot, reading, [one.worker for one in able if one.verdict is Feasibility.FIT])


def _in_line(task: Task, snapshot: Snapshot, reading: list[WorkerView], free: list[str]) -> tuple[ReasonCode, str]:
    urgent, earlier = min(before_it(task, snapshot, view) for view in reading)
    if urgent:
        others = f", and {earlier} of its own level" if earlier else ""
        return ReasonCode.BEHIND_PRIORITY, f"{urgent} more urgent {_tasks(urgent)} before it{others}"
    if earlier:
        return ReasonCode.BEHIND_EARLIER, f"{earlier} {_tasks(earlier)} of its own level before it"
    if free:
        return ReasonCode.ABOUT_TO_START, f"it is the next, and {free[0]} is free for it"
    count = len(reading)
    busy = f"{reading[0].worker} is" if count == 1 else f"all {count} workers that could take it are"
    return ReasonCode.ALL_CAPABLE_BUSY, f"it is the next; {busy} busy"


def before_it(task: Task, snapshot: Snapshot, view: WorkerView) -> tuple[int, int]:
    """How many messages this worker would take before it: of lower levels, and of the same one."""
    urgent = earlier = 0
    own_only = view.cordon is not None and split(task.lane)[1] is not None
    for lane, level in reading_order(view, own_only=own_only):
        known = snapshot.lane_by_name.get(lane)
        if known is None or known.queue in snapshot.paused:
            continue
        if (lane, level) == (task.lane, task.level):
            break
        if level == task.level:
            earlier += known.lengths[level]
        else:
            urgent += known.lengths[level]
    return urgent, earlier + max((task.depth or 1) - 1, 0)


_WORDS = {
    Feasibility.NO_GPU: "without a GPU",
    Feasibility.CONTENT_TYPE: "not for this content type",
    Feasibility.MEMORY: "with too little memory",
    Feasibility.NOT_SERVED: "not reading the lane",
}


def _counted(workers: tuple[Score, ...]) -> str:
    counts = Counter(one.verdict for one in workers)
    told = [f"{counts[one]} {_WORDS.get(one, one.value)}" for one in Feasibility if counts[one]]
    return ", ".join(told) or "none is registered"


def _tasks(count: int) -> str:
    return "task is" if count == 1 else "tasks are"


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
