"""Why a task is in its state: one reason code, a sentence, the workers that could take it, and the expected start.

The first reason that holds is given, in this order: the task has ended; a worker holds it; its queue is paused; its ETA
is in the future; no worker can take it; other tasks are ahead of it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from morag_queue.core.lanes import split
from morag_queue.core.model import QueueType, WorkerStatus
from morag_queue.core.pauses import paused_words, resume_command
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.feasibility import Feasibility, Score, WorkerLoad, count_verdicts, worker_loads
from morag_queue.core.routing.score_table import ScoreTable, WorkClass
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.task import Task
from morag_queue.core.words import count_of, is_are, span
from morag_queue.core.worker_status import in_flight, status_in

from .eta import ExpectedStart, ListId, RunTime, expected_start, reading_order


class ReasonCode(StrEnum):
    """Why a task is in its state. Scripts may rely on these codes; the sentences beside them may change."""

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
    ReasonCode.COMPLETED: "it completed",
    ReasonCode.FAILED: "it failed",
    ReasonCode.CANCELLED: "it was cancelled",
    ReasonCode.QUARANTINED: "it was quarantined after too many of its workers died",
    ReasonCode.RUNNING: "a worker is running it",
    ReasonCode.RESERVED: "a worker has prefetched it and runs other tasks first",
    ReasonCode.HOLDER_OFFLINE: "an offline worker holds it: a failover requeues it",
    ReasonCode.NOT_ON_BROKER: "the ledger has it as open, but its message is not on the broker: a sweep sends it again",
    ReasonCode.QUEUE_PAUSED: "its queue is paused",
    ReasonCode.ETA_NOT_REACHED: "its ETA is in the future",
    ReasonCode.NO_CAPABLE_WORKER: "no registered worker can take it",
    ReasonCode.LANE_CORDONED: "all workers that can take it are out of service",
    ReasonCode.ALL_CAPABLE_OFFLINE: "all workers that can take it are offline, suspect or out of service",
    ReasonCode.LEVEL_NOT_POLLED: "no worker polls its level",
    ReasonCode.BEHIND_PRIORITY: "more urgent tasks are ahead of it",
    ReasonCode.BEHIND_EARLIER: "earlier tasks of its level are ahead of it",
    ReasonCode.ALL_CAPABLE_BUSY: "it is next, and all workers that can take it are busy",
    ReasonCode.ABOUT_TO_START: "it is next, and a worker is free",
}


# The codes of queued tasks that only wait for their turn: a start can be estimated.
_WAITING_FOR_TURN = frozenset({
    ReasonCode.BEHIND_PRIORITY, ReasonCode.BEHIND_EARLIER, ReasonCode.ALL_CAPABLE_BUSY, ReasonCode.ABOUT_TO_START,
})  # fmt: skip
_READY = (Feasibility.FIT, Feasibility.FULL)
_OUT_OF_SERVICE = (Feasibility.CORDONED, Feasibility.DRAINING, Feasibility.DRAINED)
_UNABLE = (Feasibility.NO_GPU, Feasibility.CONTENT_TYPE, Feasibility.MEMORY, Feasibility.NOT_SERVED)


@dataclass(frozen=True, slots=True)
class Explanation:
    """`workers` are best first. `expected` is None if the task does not wait for its turn or no worker will take it.

    `ahead` has the lists (lane, level) with the messages that run before it, in this order, and their numbers.
    """

    code: ReasonCode
    reason: str
    workers: tuple[Score, ...] = ()
    expected: ExpectedStart | None = None
    ahead: tuple[tuple[ListId, int], ...] = ()


def explain(
    task: Task, snapshot: Snapshot, policy: Policy, queues: Queues, runs: Mapping[QueueType, RunTime]
) -> Explanation:
    """Explain one task on a snapshot of the fleet. `runs` has the run times of all four queues."""
    if task.has_ended:
        return _explain_ended(task)
    if not task.is_on_broker:
        return Explanation(
            ReasonCode.NOT_ON_BROKER, f"{MEANING[ReasonCode.NOT_ON_BROKER]} (morag-queue failover --dead)"
        )
    if task.claimed_at is not None:
        return _explain_held(task, task.claimed_at, snapshot, policy)
    workers = _scores(task, snapshot, policy, queues)
    explanation = _explain_queued(task, snapshot, workers)
    if explanation.code in _WAITING_FOR_TURN and task.level is not None and task.depth is not None:
        expected = expected_start(snapshot, policy, runs, task.lane, task.level, task.depth)
        return replace(explanation, workers=workers, expected=expected)
    return replace(explanation, workers=workers)


def _explain_ended(task: Task) -> Explanation:
    code = ReasonCode(task.state.name)
    worker = f" on {task.worker}" if task.worker else ""
    error = f": {task.error}" if task.error else ""
    duration = f" after {task.run_seconds:.1f} s" if task.run_seconds is not None else ""
    return Explanation(code, f"{MEANING[code]}{worker}{duration}{error}")


def _explain_held(task: Task, claimed_at: float, snapshot: Snapshot, policy: Policy) -> Explanation:
    """A worker holds the task. No record says which tasks run: a worker is assumed to run what it claimed first."""
    now, worker = snapshot.taken_at, str(task.worker)
    view = snapshot.worker_by_id.get(worker)
    status, why = status_in(snapshot, view, policy) if view is not None else (WorkerStatus.OFFLINE, "not registered")
    if status is WorkerStatus.OFFLINE:
        reason = f"{worker} holds it and is offline ({why}): morag-queue failover {worker} requeues it"
        return Explanation(ReasonCode.HOLDER_OFFLINE, reason)
    if task.eta_at is not None and task.eta_at > now:
        reason = f"{worker} holds it until its ETA, in {span(task.eta_at - now)}"
        start = ExpectedStart(start=task.eta_at, earliest=task.eta_at, latest=task.eta_at, ahead=0)
        return Explanation(ReasonCode.ETA_NOT_REACHED, reason, expected=start)
    held = snapshot.held_by_worker.get(worker, ())
    ahead = sum((message.claimed_at, message.task_id) < (claimed_at, task.task_id) for message in held)
    slots = max(view.info.slots, 1) if view is not None else 1
    if ahead >= slots:
        reason = f"{worker} has prefetched it and runs {count_of(slots, 'other task')} first"
        return Explanation(ReasonCode.RESERVED, reason)
    return Explanation(ReasonCode.RUNNING, f"{worker} claimed it {span(now - claimed_at)} ago and is running it")


def _scores(task: Task, snapshot: Snapshot, policy: Policy, queues: Queues) -> tuple[Score, ...]:
    """Return the scores of all workers, or for a worker's own lane of that worker alone."""
    if task.queue is None:
        return ()
    loads: Collection[WorkerLoad] = worker_loads(snapshot, policy).values()
    _, owner = split(task.lane)
    if owner is not None:
        loads = [load for load in loads if load.worker == owner]
    work = WorkClass(task.requires, task.content_type, 0.0)
    scores = ScoreTable(loads, task.queue, work, policy, queues, None).scores(task.estimated_duration or 0.0)
    return scores if owner is None else tuple(_in_own_lane(score, snapshot) for score in scores)


def _in_own_lane(score: Score, snapshot: Snapshot) -> Score:
    """Adjust a verdict for the worker's own lane: a cordoned worker finishes it, and it is full by held tasks only."""
    if score.verdict not in (Feasibility.CORDONED, *_READY):
        return score
    view = snapshot.worker_by_id[score.worker]
    full = in_flight(view, snapshot.held_count(view)) >= max(view.info.slots, 1)
    return score.model_copy(update={"verdict": Feasibility.FULL if full else Feasibility.FIT})


def _explain_queued(task: Task, snapshot: Snapshot, workers: tuple[Score, ...]) -> Explanation:
    now = snapshot.taken_at
    if task.queue is not None and task.queue in snapshot.paused:
        words = paused_words(snapshot.pause_of(task.queue), snapshot.taken_at)
        return Explanation(
            ReasonCode.QUEUE_PAUSED, f"{task.queue} {words}: {resume_command(task.queue)} ends the pause"
        )
    if task.eta_at is not None and task.eta_at > now:
        return Explanation(
            ReasonCode.ETA_NOT_REACHED, f"it must not start before its ETA, in {span(task.eta_at - now)}"
        )
    capable = [score for score in workers if score.verdict not in _UNABLE]
    verdicts = count_verdicts(score.verdict for score in workers)
    if not capable:
        return Explanation(ReasonCode.NO_CAPABLE_WORKER, f"no worker can take it from {task.lane} ({verdicts})")
    ready = [score.worker for score in capable if score.verdict in _READY]
    if not ready:
        if all(score.verdict in _OUT_OF_SERVICE for score in capable):
            reason = f"all workers for {task.lane} are out of service ({verdicts}): uncordon one"
            return Explanation(ReasonCode.LANE_CORDONED, reason)
        reason = f"all workers that can take it from {task.lane} are away ({verdicts}): start or uncordon one"
        return Explanation(ReasonCode.ALL_CAPABLE_OFFLINE, reason)
    polling = [view for view in map(snapshot.worker_by_id.__getitem__, ready) if task.level in view.info.priority_steps]
    if not polling:
        return Explanation(
            ReasonCode.LEVEL_NOT_POLLED, f"no worker polls level {task.level} of {task.lane}: see morag-queue doctor"
        )
    free = [score.worker for score in capable if score.verdict is Feasibility.FIT]
    return _explain_position(task, snapshot, polling, free)


def _explain_position(task: Task, snapshot: Snapshot, polling: list[WorkerView], free: list[str]) -> Explanation:
    """Explain a task that waits for its turn, by the worker that would take it first."""
    counted = [(*count_ahead(task, ahead), ahead) for ahead in (lists_ahead(task, snapshot, view) for view in polling)]
    urgent, earlier, ahead = min(counted, key=lambda row: row[:2])
    if urgent:
        others = f", and {earlier} of its own level" if earlier else ""
        reason = f"{count_of(urgent, 'more urgent task')} {is_are(urgent)} ahead of it{others}"
        return Explanation(ReasonCode.BEHIND_PRIORITY, reason, ahead=ahead)
    if earlier:
        reason = f"{count_of(earlier, 'task')} of its own level {is_are(earlier)} ahead of it"
        return Explanation(ReasonCode.BEHIND_EARLIER, reason, ahead=ahead)
    if free:
        return Explanation(ReasonCode.ABOUT_TO_START, f"it is next, and {free[0]} is free")
    number = len(polling)
    busy = f"{polling[0].worker} is" if number == 1 else f"all {number} workers that can take it are"
    return Explanation(ReasonCode.ALL_CAPABLE_BUSY, f"it is next, and {busy} busy")


def lists_ahead(task: Task, snapshot: Snapshot, view: WorkerView) -> tuple[tuple[ListId, int], ...]:
    """Return the lists that this worker would empty before it takes the task, with the number of messages in each."""
    ahead: list[tuple[ListId, int]] = []
    own_only = view.cordon is not None and split(task.lane)[1] is not None
    for lane, level in reading_order(view, own_only=own_only):
        if (lane, level) == (task.lane, task.level):
            ahead.append(((lane, level), max((task.depth or 1) - 1, 0)))
            break
        lane_view = snapshot.lane_by_name.get(lane)
        if lane_view is not None and lane_view.queue not in snapshot.paused:
            ahead.append(((lane, level), lane_view.lengths[level]))
    return tuple((list_id, count) for list_id, count in ahead if count)


def count_ahead(task: Task, ahead: Iterable[tuple[ListId, int]]) -> tuple[int, int]:
    """Return how many messages these lists have: (of more urgent levels, of the task's own level)."""
    counts = [(level == task.level, count) for (_, level), count in ahead]
    return sum(count for is_own, count in counts if not is_own), sum(count for is_own, count in counts if is_own)
