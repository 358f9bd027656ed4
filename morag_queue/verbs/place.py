"""Where a task that is there already belongs: levels and lanes by the same rules as at submit."""

from morag_queue.core.estimate import best_estimate
from morag_queue.core.fleet import seats
from morag_queue.core.lanes import split
from morag_queue.core.levels import level
from morag_queue.core.model import QueuePriority, QueueType
from morag_queue.core.readers import polled_levels, readers
from morag_queue.core.route import Router
from morag_queue.core.routed import Refusal, Routed, Work
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.task import Task
from morag_queue.settings import Settings


def work_of(task: Task) -> Work:
    """What routing reads of it."""
    return Work(task.requires, task.priority, task.content_type, task.estimated_duration or 0.0)


def routed(
    picture: Snapshot,
    settings: Settings,
    task: Task,
    *,
    worker: str | None = None,
    queue: QueueType | None = None,
    force: bool = False,
) -> Routed | Refusal:
    """Where it would go if it were submitted now."""
    return Router(picture, settings.policy, settings.queues).route(work_of(task), pin=worker, queue=queue, force=force)


def level_of(picture: Snapshot, settings: Settings, task: Task, priority: QueuePriority) -> int:
    """The level of another priority, in the lane where the task is: one that its readers poll."""
    wanted = level(
        priority, best_estimate(task.estimated_duration or 0.0, task.requires), settings.policy.order,
        wait_s=max(picture.taken_at - (task.enqueued_at or picture.taken_at), 0.0),
    )  # fmt: skip
    seated = seats(picture, settings.policy)
    _, owner = split(task.lane)
    if owner is not None:
        return polled_levels([seated[owner]] if owner in seated else [])[wanted]
    if task.queue is None:
        return wanted
    return readers(seated.values(), settings.queues).polled[task.queue][wanted]
