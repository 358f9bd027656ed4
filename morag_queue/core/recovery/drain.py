"""Plan a drain, and find the blockers that stop it before anything changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from morag_queue.core.model import HeldMessage, QueueType, WorkerStatus
from morag_queue.core.plan import Blocker, Plan, plan_of
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.lane_readers import readers_in
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.words import count_of, is_are, some
from morag_queue.core.worker_status import SERVING, status_in

from .empty_lanes import empty_lanes
from .requeue import HeldTasks, requeue_held

FORCE = "--force"
"""The flag that overrides every blocker."""


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that the worker holds, and its expected remaining minutes, None without an estimate."""

    held: HeldMessage
    remaining_minutes: float | None


@dataclass(frozen=True, slots=True)
class DrainCheck:
    """Input of the search for blockers.

    `pinned` counts the tasks in the worker's lanes that are pinned to it; `deadline_seconds` is None for a drain that
    waits without limit.
    """

    snapshot: Snapshot
    worker: WorkerView
    policy: Policy
    running: Sequence[RunningTask] = ()
    pinned: int = 0
    deadline_seconds: float | None = None


def plan_drain(snapshot: Snapshot, queues: Queues, worker: str, *, plan_id: str) -> Plan:
    """Move what waits in the worker's lanes to the shared lanes."""
    steps = empty_lanes(snapshot, worker, readers_in(snapshot, queues), f"{worker} is being drained")
    return plan_of("drain", snapshot, steps, plan_id=plan_id)


def plan_forced_requeue(
    snapshot: Snapshot, queues: Queues, worker: str, held_tasks: HeldTasks, *, plan_id: str
) -> Plan:
    """Requeue what the worker holds. Tasks that it has started may run twice."""
    held = snapshot.held_by_worker.get(worker, ())
    steps = requeue_held(held, held_tasks, readers_in(snapshot, queues), f"{worker} is drained by force")
    return plan_of("drain", snapshot, steps, plan_id=plan_id)


def drain_blockers(check: DrainCheck) -> tuple[Blocker, ...]:
    """Return every reason not to drain the worker now, overridden or not."""
    found = (find_blocker(check) for find_blocker in _CHECKS)
    return tuple(blocker for blocker in found if blocker is not None)


def unserved(snapshot: Snapshot, view: WorkerView, policy: Policy) -> tuple[QueueType, ...]:
    """Return the queues of the worker that no other worker serves."""
    others = [
        other
        for other in snapshot.workers
        if other.worker != view.worker and status_in(snapshot, other, policy)[0] in SERVING | {WorkerStatus.SUSPECT}
    ]
    served = {queue for other in others for queue in other.info.queues}
    return tuple(queue for queue in QueueType if queue.value in view.info.queues and queue.value not in served)


def _last_worker(check: DrainCheck) -> Blocker | None:
    snapshot, worker = check.snapshot, check.worker.worker
    alone = [queue for queue in unserved(snapshot, check.worker, check.policy) if snapshot.pending[queue]]
    if not alone:
        return None
    waiting = ", ".join(f"{count_of(snapshot.pending[queue], 'task')} in {queue}" for queue in alone)
    stopped = [
        view.worker
        for view in snapshot.workers
        if view.worker != worker and view.cordon is not None and not {*alone}.isdisjoint(view.info.queues)
    ]
    uncordon = f"put one back (morag-queue uncordon {min(stopped)}) or " if stopped else ""
    return Blocker(
        kind="last_worker",
        subject=worker,
        reason=f"it is the last worker in service for {waiting}",
        remedy=f"{uncordon}start one (celery worker -Q {','.join(alone)})",
        overridden_by="--allow-last",
        effect=f"to let {_it_them(sum(snapshot.pending[queue] for queue in alone))} wait",
    )


def _pinned_tasks(check: DrainCheck) -> Blocker | None:
    if not check.pinned:
        return None
    return Blocker(
        kind="pinned",
        subject=check.worker.worker,
        reason=f"{count_of(check.pinned, 'task')} in its lanes {is_are(check.pinned)} pinned to it",
        remedy=f"let {_it_them(check.pinned)} run first (morag-queue cordon {check.worker.worker}, and drain later)",
        overridden_by="--allow-pinned",
        effect=f"to give {_it_them(check.pinned)} to any worker",
    )


def _past_deadline(check: DrainCheck) -> Blocker | None:
    deadline = check.deadline_seconds
    if deadline is None:
        return None
    late = [(task, task.remaining_minutes) for task in check.running if task.remaining_minutes is not None]
    late = [(task, minutes) for task, minutes in late if minutes * 60 > deadline]
    if not late:
        return None
    longest = max(minutes for _, minutes in late)
    names = some(task.held.task_id for task, _ in late)
    return Blocker(
        kind="past_deadline",
        subject=check.worker.worker,
        reason=f"{count_of(len(late), 'task')} ({names}) {is_are(len(late))} expected to run for another "
        f"{longest:.0f} min, and the deadline is {deadline / 60:.3g} min",
        remedy=f"give it more time (--deadline {floor(longest) + 1}m)",
        overridden_by="--no-deadline",
        effect="to wait without limit",
    )


def _dead_holder(check: DrainCheck) -> Blocker | None:
    view = check.worker
    count = len(check.snapshot.held_by_worker.get(view.worker, ()))
    status, reason = status_in(check.snapshot, view, check.policy)
    gone = status is WorkerStatus.OFFLINE or view.fenced or (view.beat is not None and view.beat.stopped)
    if not gone or not count:
        return None
    return Blocker(
        kind="offline",
        subject=view.worker,
        reason=f"it holds {count_of(count, 'task')} and is gone ({reason})",
        remedy=f"recover its work (morag-queue failover {view.worker})",
        overridden_by=FORCE,
        effect="to requeue what it holds",
    )


def _it_them(count: int) -> str:
    return "it" if count == 1 else "them"


_CHECKS = (_last_worker, _pinned_tasks, _past_deadline, _dead_holder)
