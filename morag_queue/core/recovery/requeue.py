"""Requeue the messages that a worker holds: each goes to the front of a shared lane."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from morag_queue.core.failure import RetryDecision, delay_seconds, eta, retry_decision
from morag_queue.core.lanes import lane, queue_of
from morag_queue.core.model import HeldMessage, QueueType
from morag_queue.core.plan import Declined, TakeBack
from morag_queue.core.policy import Policy
from morag_queue.core.routing.gpu_safety import is_unsafe_lane
from morag_queue.core.routing.lane_readers import LaneReaders

NO_TARGETS: Mapping[QueueType, QueueType] = {}


@dataclass(frozen=True, slots=True)
class HeldTasks:
    """Facts about held tasks that are not in the snapshot.

    `attempts` counts, by task id, the workers that died over a task; `gpu` are the ids of those that require a GPU.
    """

    attempts: Mapping[str, int] = field(default_factory=dict)
    gpu: Collection[str] = ()


def requeue_held(
    held: Iterable[HeldMessage],
    tasks: HeldTasks,
    readers: LaneReaders,
    reason: str,
    *,
    targets: Mapping[QueueType, QueueType] = NO_TARGETS,
) -> Iterator[TakeBack | Declined]:
    """Requeue held messages; the one that was claimed first will run first.

    Each goes to the front of its lane, so the one that was claimed last is requeued first. `targets` replaces the queue
    that the work of a queue goes to.
    """
    for message in sorted(held, key=lambda message: message.claimed_at)[::-1]:  # ties: the order of the snapshot
        target = requeue_target(message.task_id, message.lane, tasks, readers, targets)
        if target is None:
            yield no_safe_lane(message.task_id, reason)
        else:
            yield TakeBack(
                task_id=message.task_id, tag=message.tag, worker=message.worker, incarnation=message.incarnation,
                target=target, level=readers.readable(message.level, target), reason=reason,
            )  # fmt: skip


def after_death(
    steps: Iterable[TakeBack | Declined], tasks: HeldTasks, now: float, policy: Policy
) -> Iterator[TakeBack | Declined]:
    """Count the requeues as deaths of the worker: each further one delays the task, and too many quarantine it.

    `now` is the server's clock, seconds since the epoch.
    """
    for step in steps:
        if isinstance(step, Declined):
            yield step
            continue
        before = tasks.attempts.get(step.task_id, 0)
        delayed = retry_decision(before, policy.max_retries) is RetryDecision.RETRY_WITH_DELAY
        runs_at = eta(now + delay_seconds(before, policy.recovery)) if delayed else ""
        yield step.model_copy(update={"max_deaths": policy.max_retries, "eta": runs_at})


def requeue_target(
    task_id: str,
    held_lane: str,
    tasks: HeldTasks,
    readers: LaneReaders,
    targets: Mapping[QueueType, QueueType] = NO_TARGETS,
) -> str | None:
    """Return the shared lane that a held task goes to; None if it requires a GPU and every queue is closed to it."""
    queue = queue_of(held_lane)
    target = lane(targets.get(queue, queue)) if queue else held_lane
    if task_id in tasks.gpu and is_unsafe_lane(target, readers.unsafe):
        return None if readers.gpu_queue is None else lane(readers.gpu_queue)
    return target


def no_safe_lane(task_id: str, reason: str) -> Declined:
    """Decline a task that requires a GPU while every queue is closed to such work."""
    return Declined(subject=f"task {task_id}", reason=f"{reason}: it requires a GPU, and CPU workers read every lane")
