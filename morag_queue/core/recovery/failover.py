"""Plan a failover: requeue what dead workers hold, and empty their lanes."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from morag_queue.core.model import Capability, QueueType
from morag_queue.core.plan import Declined, Plan, Step, plan_of
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.lane_readers import LaneReaders, fallbacks, readers_in
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.worker_status import SERVING, status_in

from .empty_lanes import empty_lanes
from .requeue import HeldTasks, after_death, requeue_held


def plan_failover(
    snapshot: Snapshot,
    policy: Policy,
    queues: Queues,
    workers: Iterable[str],
    held_tasks: HeldTasks,
    *,
    plan_id: str,
    why: str = "it is dead",
) -> Plan:
    """Requeue what these workers hold at the front, and move what waits in their lanes behind the shared work.

    The caller has fenced them, or proved that they are dead.
    """
    gone = set(workers)
    readers = readers_in(snapshot, queues)
    targets, unserved = _targets(snapshot, gone, policy, queues, readers)
    steps: list[Step | Declined] = []
    for worker in sorted(gone):
        reason = f"{worker}: {why}"
        held = snapshot.held_by_worker.get(worker, ())
        requeues = requeue_held(held, held_tasks, readers, reason, targets=targets)
        steps += [*after_death(requeues, held_tasks, snapshot.taken_at, policy)]
        steps += [*empty_lanes(snapshot, worker, readers, reason, targets=targets)]
    return plan_of("failover", snapshot, (*unserved, *steps), plan_id=plan_id)


def without_workers(snapshot: Snapshot, workers: Collection[str]) -> Snapshot:
    """Return the snapshot without what these workers hold and what waits in their lanes.

    After a failover the rest of the turn is planned on it, which saves another read of the fleet. The recovered work
    appears in the shared lanes in the next turn.
    """
    gone = set(workers)
    if not gone:
        return snapshot
    return replace(
        snapshot,
        held=tuple(message for message in snapshot.held if message.worker not in gone),
        lanes=tuple(view for view in snapshot.lanes if view.worker not in gone),
    )


def without_tasks(snapshot: Snapshot, task_ids: Collection[str]) -> Snapshot:
    """Return the snapshot without the held messages of these tasks."""
    if not task_ids:
        return snapshot
    return replace(snapshot, held=tuple(message for message in snapshot.held if message.task_id not in task_ids))


def _targets(
    snapshot: Snapshot, gone: set[str], policy: Policy, queues: Queues, readers: LaneReaders
) -> tuple[Mapping[QueueType, QueueType], list[Declined]]:
    """Return (the fallback of each queue without a worker in service, the queues without a served fallback).

    A lane is moved as a whole, and its messages may require a GPU: a GPU queue falls back to safe queues only.
    """

    def is_served(queue: QueueType) -> bool:
        views = (view for view in snapshot.workers if queue.value in view.info.queues and view.worker not in gone)
        return any(status_in(snapshot, view, policy)[0] in SERVING for view in views)

    targets: dict[QueueType, QueueType] = {}
    declined: list[Declined] = []
    for queue in {view.queue for worker in gone for view in snapshot.lanes_by_worker.get(worker, ()) if view.length}:
        has_gpu_work = Capability.CPU not in queues.of(queue).served_by
        chain = (
            fallback
            for fallback in fallbacks(queue, queues)
            if fallback is queue or not has_gpu_work or fallback not in readers.unsafe
        )
        target = next((fallback for fallback in chain if is_served(fallback)), None)
        if target is None:
            declined.append(Declined(subject=queue, reason="no worker in service reads it: its tasks wait"))
        elif target is not queue:
            targets[queue] = target
    return targets, declined
