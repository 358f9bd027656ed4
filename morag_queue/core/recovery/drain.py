"""Taking a worker out of service: what goes where, and what stands against it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from morag_queue.core.lanes import lane, split
from morag_queue.core.model import HeldMessage, QueueType, WorkerStatus
from morag_queue.core.plan import Blocker, MoveLane, Plan, TakeBack
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.lane_readers import is_unsafe
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.worker_status import SERVING, status_in

_NAMED_AT_MOST = 3


@dataclass(frozen=True, slots=True)
class RunningTask:
    """One task in the worker's hands and how long it is expected to take still; None where nobody knows."""

    held: HeldMessage
    minutes_left: float | None


def plan_drain(snapshot: Snapshot, worker: str, queues: Queues, *, plan_id: str) -> Plan:
    """All that waits in the worker's own lanes, to the shared lanes: levels and order are kept."""
    steps = own_lanes(snapshot, worker, queues, f"{worker} is being drained")
    return Plan(plan_id=plan_id, verb="drain", fleet=snapshot.fleet, taken_at=snapshot.taken_at, steps=tuple(steps))


def plan_force(snapshot: Snapshot, worker: str, *, plan_id: str) -> Plan:
    """What it has in its hands, begun or not, back to the shared lanes. What runs there runs again: at least once."""
    held = sorted(snapshot.held_by_worker.get(worker, ()), key=lambda one: one.claimed_at)[::-1]
    steps = tuple(
        TakeBack(
            task_id=one.task_id, tag=one.tag, worker=worker, incarnation=one.incarnation,
            target=split(one.lane)[0], level=one.level, reason=f"{worker} is drained by force",
        )
        for one in held
    )  # fmt: skip
    return Plan(plan_id=plan_id, verb="drain", fleet=snapshot.fleet, taken_at=snapshot.taken_at, steps=steps)


def own_lanes(
    snapshot: Snapshot,
    worker: str,
    queues: Queues,
    reason: str,
    targets: Mapping[QueueType, QueueType] = {},
) -> Iterator[MoveLane]:
    """A worker's lanes to the shared lanes of their queues, or of those that `targets` names instead.

    A pin that was forced may have put work that needs a GPU in a lane of a CPU queue: that stays, a worker without a
    GPU would take it from the shared lane.
    """
    for view in snapshot.lanes_by_worker.get(worker, ()):
        target = targets.get(view.queue, view.queue)
        for level, length in enumerate(view.lengths):
            if length:
                yield MoveLane(
                    source=view.lane, target=lane(target), level=level, count=length, reason=reason,
                    keeps_gpu=is_unsafe(snapshot, target, queues),
                )  # fmt: skip


def drain_blockers(
    snapshot: Snapshot,
    view: WorkerView,
    policy: Policy,
    *,
    running: tuple[RunningTask, ...],
    pinned: int,
    deadline_seconds: float | None,
) -> tuple[Blocker, ...]:
    """All that stands against draining this worker now; nothing is touched while there is any that is not overridden.

    `pinned` is how many tasks in its lanes a person gave to this very worker. `deadline_seconds` is None where the
    drain may take as long as it takes.
    """
    found = [
        _last_of_its_kind(snapshot, view, policy),
        _pinned(view.worker, pinned),
        _past_the_deadline(view.worker, running, deadline_seconds),
        _dead_hands(snapshot, view, policy),
    ]
    return tuple(one for one in found if one is not None)


def unserved(snapshot: Snapshot, view: WorkerView, policy: Policy) -> tuple[QueueType, ...]:
    """The queues that nobody serves when this worker is gone."""
    others = [
        other
        for other in snapshot.workers
        if other.worker != view.worker and status_in(snapshot, other, policy)[0] in SERVING | {WorkerStatus.SUSPECT}
    ]
    served = {queue for other in others for queue in other.info.queues}
    return tuple(queue for queue in QueueType if queue.value in view.info.queues and queue.value not in served)


def _last_of_its_kind(snapshot: Snapshot, view: WorkerView, policy: Policy) -> Blocker | None:
    waiting = {queue: snapshot.pending[queue] for queue in unserved(snapshot, view, policy) if snapshot.pending[queue]}
    if not waiting:
        return None
    told = ", ".join(f"{count} in {queue}" for queue, count in waiting.items())
    return Blocker(
        kind="last_worker",
        subject=view.worker,
        reason=f"it is the last worker in service for work that waits ({told})",
        remedy="start another worker that serves it",
        overridden_by="--allow-last",
    )


def _pinned(worker: str, pinned: int) -> Blocker | None:
    if not pinned:
        return None
    return Blocker(
        kind="pinned",
        subject=worker,
        reason=f"{_tasks(pinned)} in its lanes {_are(pinned)} pinned to it",
        remedy="let them run first (`morag-queue cordon` takes nothing new), or let them go to any worker",
        overridden_by="--allow-pinned",
    )


def _past_the_deadline(worker: str, running: tuple[RunningTask, ...], deadline_seconds: float | None) -> Blocker | None:
    if deadline_seconds is None:
        return None
    late = [one for one in running if one.minutes_left is not None and one.minutes_left * 60 > deadline_seconds]
    if not late:
        return None
    longest = max(one.minutes_left or 0.0 for one in late)
    names = ", ".join(one.held.task_id for one in late[:_NAMED_AT_MOST])
    more = f" and {len(late) - _NAMED_AT_MOST} more" if len(late) > _NAMED_AT_MOST else ""
    return Blocker(
        kind="past_deadline",
        subject=worker,
        reason=f"{_tasks(len(late))} ({names}{more}) {_are(len(late))} expected to run {longest:.0f} min still, "
        f"and the deadline is {deadline_seconds / 60:.3g} min",
        remedy="give a longer --deadline",
        overridden_by="--no-deadline",
    )


def _dead_hands(snapshot: Snapshot, view: WorkerView, policy: Policy) -> Blocker | None:
    count = len(snapshot.held_by_worker.get(view.worker, ()))
    word, reason = status_in(snapshot, view, policy)
    gone = word is WorkerStatus.OFFLINE or view.fenced or (view.beat is not None and view.beat.stopped)
    if not gone or not count:
        return None
    return Blocker(
        kind="offline",
        subject=view.worker,
        reason=f"it holds {_tasks(count)} and does not end them: {reason}",
        remedy=f"take them back with `morag-queue failover {view.worker}`",
        overridden_by="--force",
    )


def _tasks(count: int) -> str:
    return f"{count} task" if count == 1 else f"{count} tasks"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
