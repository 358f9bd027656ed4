"""Plan a sweep: recover messages that no worker holds, lanes of missing workers, and tasks without a message."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from morag_queue.core.model import HeldMessage, QueueType
from morag_queue.core.plan import Declined, Plan, Resend, Step, TakeBack, plan_of
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.lane_readers import LaneReaders, readers_in
from morag_queue.core.snapshot import Snapshot, WorkerView

from .empty_lanes import empty_lanes
from .requeue import HeldTasks, after_death, no_safe_lane, requeue_held, requeue_target

_NAMED_TASKS = 3


@dataclass(frozen=True, slots=True)
class StaleMessage:
    """An unacked message that no worker has touched for long. `worker` and `incarnation` are empty without a holder."""

    tag: str
    worker: str
    incarnation: str
    lane: str
    task_id: str
    level: int


@dataclass(frozen=True, slots=True)
class OpenTask:
    """An open task of the ledger: where and when it was queued (seconds since the epoch)."""

    task_id: str
    enqueued_at: float
    queue: str
    level: int


@dataclass(frozen=True, slots=True)
class SweepFindings:
    """What a sweep found on the broker beyond the snapshot.

    tasks         what the broker knows of these held, stale and lost tasks
    finished      ids of held tasks that a result proves to have succeeded; they are not requeued
    stale         messages not touched since `stale_before` (seconds since the epoch)
    agentless     connected workers without the agent
    lost          open tasks whose message was missing twice
    declined      open tasks that the search could not decide on
    """

    tasks: HeldTasks = field(default_factory=HeldTasks)
    finished: Collection[str] = ()
    stale: Sequence[StaleMessage] = ()
    stale_before: float = 0.0
    agentless: int = 0
    lost: Sequence[OpenTask] = ()
    declined: Sequence[Declined] = ()


def plan_sweep(snapshot: Snapshot, policy: Policy, queues: Queues, findings: SweepFindings, *, plan_id: str) -> Plan:
    """Requeue what no worker holds any more, empty the lanes of missing workers, resend what is lost."""
    readers = readers_in(snapshot, queues)
    parts: list[Step | Declined] = [
        *_former_runs(snapshot, policy, readers, findings),
        *_stale(snapshot, readers, findings),
        *_abandoned_lanes(snapshot, policy, readers),
        *_resends(readers, findings),
        *findings.declined,
    ]
    return plan_of("sweep", snapshot, parts, plan_id=plan_id)


def orphan_after(snapshot: Snapshot, policy: Policy) -> float:
    """Seconds without a touch after which a message counts as stale: several heartbeats of the slowest worker."""
    slowest = max((view.info.beat_seconds for view in snapshot.workers), default=0.0)
    return max(policy.recovery.orphan_after_seconds, 3 * slowest)


def held_by_former_runs(snapshot: Snapshot) -> tuple[HeldMessage, ...]:
    """Messages whose holder was fenced, or has been replaced by a new run of its worker.

    A failover that was cut off leaves such messages, or a worker that died before it could requeue them itself.
    """
    known = snapshot.worker_by_id
    return tuple(
        message
        for message in snapshot.held
        if message.worker in known and not _acts(known[message.worker], message.incarnation)
    )


def suspects(snapshot: Snapshot, opened: Iterable[OpenTask]) -> list[OpenTask]:
    """Open tasks that should be at the head of their lane by now; one that is not there may be lost.

    A task ahead of everything that waits at its level is about to be claimed, was moved, or is lost. A task with others
    ahead of it most likely waits; it is checked when its turn comes.
    """
    held = {message.task_id for message in snapshot.held}
    oldest = _oldest(snapshot)
    return [
        task
        for task in opened
        if task.task_id not in held
        and '"' not in task.task_id  # the text search cannot find such an id
        and task.enqueued_at < oldest.get((task.queue, task.level), inf)
    ]


def all_lists(snapshot: Snapshot) -> list[tuple[str, int, int]]:
    """Every list that is not empty: lane, level, length."""
    return [
        (view.lane, level, length) for view in snapshot.lanes for level, length in enumerate(view.lengths) if length
    ]


def _former_runs(
    snapshot: Snapshot, policy: Policy, readers: LaneReaders, findings: SweepFindings
) -> Iterator[TakeBack | Declined]:
    held = [message for message in held_by_former_runs(snapshot) if message.task_id not in findings.finished]
    requeues = requeue_held(held, findings.tasks, readers, "the run of its worker that held it has ended")
    return after_death(requeues, findings.tasks, snapshot.taken_at, policy)


def _stale(snapshot: Snapshot, readers: LaneReaders, findings: SweepFindings) -> Iterator[TakeBack | Declined]:
    """Requeue messages that their holder has lost. The one untouched for longest goes last, so it runs first.

    The agent touches all that its worker holds, including tasks that wait for their rate limit; what it does not touch
    it has lost, for example with a connection. A worker without the agent touches nothing, so while there are such
    workers a message without a holder is left alone.
    """
    unclear: list[str] = []
    for message in reversed(findings.stale):
        if message.incarnation and not _has_let_go(snapshot, message, findings.stale_before):
            continue
        if not message.incarnation and findings.agentless:
            unclear.append(message.task_id)
            continue
        reason = f"{message.worker} lost it" if message.worker else "no worker has it"
        target = requeue_target(message.task_id, message.lane, findings.tasks, readers)
        if target is None:
            yield no_safe_lane(message.task_id, reason)
            continue
        yield TakeBack(
            task_id=message.task_id, tag=message.tag, worker=message.worker, incarnation=message.incarnation,
            target=target, level=message.level, reason=reason, untouched_since=findings.stale_before,
        )  # fmt: skip
    if unclear:
        few = ", ".join(unclear[:_NAMED_TASKS]) + ("…" if len(unclear) > _NAMED_TASKS else "")
        reason = "no owner is known, and a worker without the agent may have them; the visibility timeout will tell"
        yield Declined(subject=f"{len(unclear)} taken messages ({few})", reason=reason)


def _abandoned_lanes(snapshot: Snapshot, policy: Policy, readers: LaneReaders) -> Iterator[Step | Declined]:
    """Empty the lanes of workers that are not registered, once something has waited there for long.

    A person may have pinned work to a worker that is still to be started: it gets the time of a missed heartbeat.
    """
    for worker, views in snapshot.lanes_by_worker.items():
        if worker in snapshot.worker_by_id:
            continue
        since = min((view.oldest for view in views if view.oldest is not None), default=None)
        if since is not None and snapshot.taken_at - since > policy.offline_after_seconds:
            yield from empty_lanes(snapshot, worker, readers, f"there is no worker {worker}")


def _resends(readers: LaneReaders, findings: SweepFindings) -> Iterator[Resend | Declined]:
    """Resend the newest first: each goes to the front of its lane, so the oldest ends up in front."""
    reason = "it was open, and its message was nowhere on the broker"
    for task in sorted(findings.lost, key=lambda task: task.enqueued_at, reverse=True):
        target = requeue_target(task.task_id, task.queue, findings.tasks, readers)
        if target is None:
            yield no_safe_lane(task.task_id, reason)
        else:
            yield Resend(task_id=task.task_id, reason=reason, target="" if target == task.queue else target)


def _oldest(snapshot: Snapshot) -> dict[tuple[str, int], float]:
    found: dict[tuple[str, int], float] = {}
    for view in snapshot.lanes:
        for level, at in enumerate(view.oldest_enqueued_at):
            if at is not None:
                key = (QueueType(view.queue).value, level)
                found[key] = min(at, found.get(key, at))
    return found


def _acts(view: WorkerView, incarnation: str) -> bool:
    return not view.fenced and view.info.incarnation == incarnation


def _has_let_go(snapshot: Snapshot, message: StaleMessage, before: float) -> bool:
    """Whether the holder has sent a heartbeat since without the message, or is not registered.

    A silent holder is left to failover.
    """
    view = snapshot.worker_by_id.get(message.worker)
    if view is None:
        return True
    return _acts(view, message.incarnation) and view.beat is not None and view.beat.at > before
