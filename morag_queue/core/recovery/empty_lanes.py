"""Empty the lanes of one worker. Drain, failover, sweep and the balancing loop all use this planner."""

from collections.abc import Iterator, Mapping

from morag_queue.core.lanes import lane
from morag_queue.core.model import QueueType, Requires
from morag_queue.core.plan import Declined, MoveLane, MoveTask, Step
from morag_queue.core.routing.lane_readers import LaneReaders
from morag_queue.core.snapshot import LaneView, Snapshot

from .requeue import NO_TARGETS, no_safe_lane


def empty_lanes(
    snapshot: Snapshot,
    worker: str,
    readers: LaneReaders,
    reason: str,
    *,
    targets: Mapping[QueueType, QueueType] = NO_TARGETS,
    only: QueueType | None = None,
    rule: str = "",
) -> Iterator[Step | Declined]:
    """Move what waits in the worker's lanes to the shared lanes, level by level, in the same order.

    `targets` replaces the queue that the work of a queue goes to, `only` limits the plan to one queue. A level that
    some reader of the target does not poll is changed to the next one. A forced pin may have put work that requires a
    GPU in the lane of a CPU queue: such work goes to a safe GPU queue, each task once it is at the head of its lane.
    """
    for view in snapshot.lanes_by_worker.get(worker, ()):
        if only not in (None, view.queue):
            continue
        target = targets.get(view.queue, view.queue)
        for level, length in enumerate(view.lengths):
            if length:
                yield from _empty_level(view, level, target, readers, reason, rule)


def _empty_level(
    view: LaneView, level: int, target: QueueType, readers: LaneReaders, reason: str, rule: str
) -> Iterator[Step | Declined]:
    unsafe = target in readers.unsafe
    gpu_tasks = [head.task_id for head in view.heads[level] if unsafe and head.requires is Requires.GPU]
    for task_id in gpu_tasks:
        if readers.gpu_queue is None:
            yield no_safe_lane(task_id, reason)
        else:
            yield MoveTask(
                task_id=task_id, source=view.lane, target=lane(readers.gpu_queue), level=level,
                to_level=readers.readable(level, readers.gpu_queue), reason=f"{reason}; it needs a GPU", rule=rule,
                keeps_gpu=False,
            )  # fmt: skip
    if (count := view.lengths[level] - len(gpu_tasks)) > 0:
        yield MoveLane(
            source=view.lane, target=lane(target), level=level, count=count, reason=reason, rule=rule, keeps_gpu=unsafe,
            to_level=changed(level, readers.readable(level, target)),
        )  # fmt: skip


def changed(level: int, to_level: int) -> int | None:
    """Return the new level of a step that moves a lane; None if it stays."""
    return to_level if to_level != level else None
