"""Plan a sweep: requeue messages that no worker holds, empty lanes of unregistered workers, resend lost tasks."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from morag_queue.core.levels import readable
from morag_queue.core.model import HeldMessage, QueueType
from morag_queue.core.plan import Declined, Plan, Resend, Step, TakeBack, plan_of
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.lane_readers import LaneReaders, readers_in
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.words import count_of, some

from .empty_lanes import empty_lanes
from .requeue import HeldTasks, after_death, no_safe_lane, requeue_held, requeue_target


@dataclass(frozen=True, slots=True)
class StaleMessage:
    """An unacked message with an old timestamp. `worker` and `incarnation` are empty if it has no known holder."""

    tag: str
    worker: str
    incarnation: str
    lane: str
    task_id: str
    level: int


@dataclass(frozen=True, slots=True)
class OpenTask:
    """An open task of the ledger. `enqueued_at` is seconds since the epoch."""

    task_id: str
    enqueued_at: float
    queue: str
    level: int


@dataclass(frozen=True, slots=True)
class SweepFindings:
    """Findings of a sweep beyond the snapshot.

    tasks         facts about the held, stale and lost tasks
    finished      ids of held tasks whose result shows that they succeeded; they are not requeued
    stale         messages not touched since `stale_before` (seconds since the epoch)
    agentless     number of workers without the agent
    lost          open tasks whose message was missing twice
    declined      open tasks that may be lost, or not
    """

    tasks: HeldTasks = field(default_factory=HeldTasks)
    finished: Collection[str] = ()
    stale: Sequence[StaleMessage] = ()
    stale_before: float = 0.0
    agentless: int = 0
    lost: Sequence[OpenTask] = ()
    declined: Sequence[Declined] = ()


def plan_sweep(snapshot: Snapshot, policy: Policy, queues: Queues, findings: SweepFindings, *, plan_id: str) -> Plan:
    """Requeue messages that no worker holds, empty the lanes of unregistered workers, resend lost tasks."""
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
    """Return after how many seconds without a touch a message is stale: 3 heartbeats of the slowest worker or more."""
    slowest = max((view.info.beat_seconds for view in snapshot.workers), default=0.0)
    return max(policy.recovery.orphan_after_seconds, 3 * slowest)


def held_by_former_runs(snapshot: Snapshot) -> tuple[HeldMessage, ...]:
    """Return the messages whose holder was fenced, or was replaced by a new run of its worker.

    They are left by an interrupted failover, or by a worker that died before it could requeue them itself.
    """
    known = snapshot.worker_by_id
    return tuple(
        message
        for message in snapshot.held
        if message.worker in known and not _is_current(known[message.worker], message.incarnation)
    )


def suspects(snapshot: Snapshot, opened: Iterable[OpenTask]) -> list[OpenTask]:
    """Return the open tasks that should be at the head of their lane by now. Those not found there may be lost.

    A task older than all that wait at its level is about to be claimed, was moved, or is lost. A younger task most
    likely waits; it is checked once it is the oldest.
    """
    held = {message.task_id for message in snapshot.held}
    oldest = _oldest(snapshot)
    return [
        task
        for task in opened
        if task.task_id not in held
        and '"' not in task.task_id  # the text search cannot find such an id
        and task.enqueued_at < oldest.get((task.queue, task.level), _oldest_at(snapshot, oldest, task))
    ]


def all_lists(snapshot: Snapshot) -> list[tuple[str, int, int]]:
    """Return every list that is not empty: (lane, level, length)."""
    return [
        (view.lane, level, length) for view in snapshot.lanes for level, length in enumerate(view.lengths) if length
    ]


def _former_runs(
    snapshot: Snapshot, policy: Policy, readers: LaneReaders, findings: SweepFindings
) -> Iterator[TakeBack | Declined]:
    held = [message for message in held_by_former_runs(snapshot) if message.task_id not in findings.finished]
    requeues = requeue_held(held, findings.tasks, readers, "it was held by a former run of its worker")
    return after_death(requeues, findings.tasks, snapshot.taken_at, policy)


def _stale(snapshot: Snapshot, readers: LaneReaders, findings: SweepFindings) -> Iterator[TakeBack | Declined]:
    """Requeue messages that their holder has lost. The stalest is requeued last, so it runs first.

    The agent touches every message that its worker holds, including those that wait for a rate limit. It has lost a
    message that it no longer touches, for example with a connection. Workers without the agent touch nothing, so while
    any of them is connected, a message without a known holder stays.
    """
    unclear: list[str] = []
    for message in reversed(findings.stale):
        if message.incarnation and not _is_lost_by_holder(snapshot, message, findings.stale_before):
            continue
        if not message.incarnation and findings.agentless:
            unclear.append(message.task_id)
            continue
        reason = f"{message.worker} lost it" if message.worker else "no worker holds it"
        target = requeue_target(message.task_id, message.lane, findings.tasks, readers)
        if target is None:
            yield no_safe_lane(message.task_id, reason)
            continue
        yield TakeBack(
            task_id=message.task_id, tag=message.tag, worker=message.worker, incarnation=message.incarnation,
            target=target, level=readers.readable(message.level, target), reason=reason,
            untouched_since=findings.stale_before,
        )  # fmt: skip
    if unclear:
        subject = f"{count_of(len(unclear), 'unacked message')} ({some(unclear)})"
        reason = (
            "no owner is known, and a worker without the agent may hold them; the visibility timeout redelivers them"
        )
        yield Declined(subject=subject, reason=reason)


def _abandoned_lanes(snapshot: Snapshot, policy: Policy, readers: LaneReaders) -> Iterator[Step | Declined]:
    """Empty the lanes of unregistered workers once something has waited there for `offline_after_seconds`.

    Work may be pinned to a worker that is about to be started.
    """
    for worker, views in snapshot.lanes_by_worker.items():
        if worker in snapshot.worker_by_id:
            continue
        since = min((view.oldest for view in views if view.oldest is not None), default=None)
        if since is not None and snapshot.taken_at - since > policy.offline_after_seconds:
            yield from empty_lanes(snapshot, worker, readers, f"{worker} is not registered")


def _resends(readers: LaneReaders, findings: SweepFindings) -> Iterator[Resend | Declined]:
    """Resend the newest first: each goes to the front of its lane, so the oldest ends up in front."""
    reason = "the ledger has it as open, but it has no message on the broker"
    for task in sorted(findings.lost, key=lambda task: task.enqueued_at, reverse=True):
        target = requeue_target(task.task_id, task.queue, findings.tasks, readers)
        if target is None:
            yield no_safe_lane(task.task_id, reason)
        else:
            yield Resend(
                task_id=task.task_id, reason=reason, target="" if target == task.queue else target,
                level=readers.readable(task.level, target),
            )  # fmt: skip


def _oldest_at(snapshot: Snapshot, oldest: Mapping[tuple[str, int], float], task: OpenTask) -> float:
    """Return since when work has waited at the level to which the balancing loop may have moved the task's."""
    return oldest.get((task.queue, readable(task.level, snapshot.steps)), inf)


def _oldest(snapshot: Snapshot) -> dict[tuple[str, int], float]:
    found: dict[tuple[str, int], float] = {}
    for view in snapshot.lanes:
        for level, at in enumerate(view.oldest_enqueued_at):
            if at is not None:
                key = (QueueType(view.queue).value, level)
                found[key] = min(at, found.get(key, at))
    return found


def _is_current(view: WorkerView, incarnation: str) -> bool:
    """Return whether this incarnation is the present run of its worker, and not fenced."""
    return not view.fenced and view.info.incarnation == incarnation


def _is_lost_by_holder(snapshot: Snapshot, message: StaleMessage, before: float) -> bool:
    """Return whether the holder is not registered, or has sent a heartbeat since without touching the message.

    A silent holder is handled by failover.
    """
    view = snapshot.worker_by_id.get(message.worker)
    if view is None:
        return True
    return _is_current(view, message.incarnation) and view.beat is not None and view.beat.at > before
