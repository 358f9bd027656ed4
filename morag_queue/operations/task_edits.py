"""task cancel: out of its lane at once; out of a worker's hands as far as Celery's revoke reaches."""

import json
from dataclasses import dataclass
from typing import Any

from morag_queue.broker.codec import rewritten
from morag_queue.broker.lanes import LaneEdit
from morag_queue.broker.task_lookup import TaskHit
from morag_queue.core.estimate import best_estimate
from morag_queue.core.explain.explain import ReasonCode
from morag_queue.core.lanes import lane, split
from morag_queue.core.levels import level
from morag_queue.core.model import QueuePriority, QueueType, TaskState
from morag_queue.core.routing.feasibility import worker_loads
from morag_queue.core.routing.lane_readers import lane_readers, polled_levels
from morag_queue.core.routing.router import Router
from morag_queue.core.routing.types import Placement, Refusal, TaskProfile
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.task import Task
from morag_queue.settings import Settings

from .task import TaskExplainer
from .task_editor import Decide, NoChange, RefusedEdit, Revoke, Step, Update


def cancelling(reason: str, *, terminate: bool) -> Decide:
    """`terminate` kills the process that runs it; without it, what already runs goes on to its end."""

    def decide(look: TaskExplainer, found: TaskHit) -> Step:
        task = found.task
        if task.state is TaskState.CANCELLED:
            return NoChange("is cancelled already")
        if task.state in (TaskState.COMPLETED, TaskState.FAILED, TaskState.QUARANTINED):
            hint = f": morag-queue dead drop {task.task_id} forgets it" if found.grave else ""
            return NoChange(f"has ended already ({task.state}){hint}")
        if task.claimed_at is not None:
            return _in_hands(look, found, terminate)
        if not task.is_on_broker:
            return RefusedEdit("is nowhere on the broker: a sweep would send it again, and then it can be cancelled")
        return _waiting(look, found, reason)

    return decide


def _waiting(look: TaskExplainer, found: TaskHit, reason: str) -> Step:
    task = found.task
    assert found.raw is not None
    assert task.level is not None
    entry = found.record or {}
    record = {
        **{name: entry[name] for name in _KEPT if name in entry},
        "state": TaskState.CANCELLED,
        "task": task.task,
        "lane": task.lane,
        "level": task.level,
        "error": reason,
        "entry": entry or {"message": found.raw},
    }
    change = LaneEdit(
        task_id=task.task_id, lane=task.lane, level=task.level, depth=task.depth or 1, raw=found.raw, text=None,
        record=json.dumps(record), queue=task.queue.value if task.queue else "",
    )  # fmt: skip
    return Update(change, "cancelled", f"out of {task.lane}", {"lane": task.lane, "level": task.level}, {})


_KEPT = ("priority", "enqueued_at", "queue", "requires", "estimated_minutes", "content_type", "worker", "source")


def _in_hands(look: TaskExplainer, found: TaskHit, terminate: bool) -> Step:
    """What a revoke can do depends on how far the worker is with it; nobody answers to a revoke."""
    task = found.task
    view = look.snapshot.worker_by_id.get(str(task.worker))
    explained = look.explain(task)
    if found.is_revoked and not (terminate and explained.code is ReasonCode.RUNNING):
        return NoChange(f"is cancelled already: {task.worker} was told to drop it")
    if view is None or explained.code is ReasonCode.HOLDER_OFFLINE:
        return RefusedEdit(f"{explained.reason}; then it can be cancelled")
    node = view.info.node or f"{view.info.worker}@{view.info.host}"
    if explained.code is not ReasonCode.RUNNING:
        detail = f"{task.worker} was told to drop it: it will not run, there or elsewhere"
        return Revoke(node, view.worker, terminate, detail)
    if terminate:
        if view.info.pool != "prefork":
            return RefusedEdit(
                f"{task.worker} runs it in a {view.info.pool} pool, where a running task cannot be killed"
            )
        detail = f"{task.worker} was told to kill the process that runs it; what the task did so far is not undone"
        return Revoke(node, view.worker, True, detail)
    return RefusedEdit(f"{task.worker} runs it: to stop it in the middle, kill its process with --terminate")


@dataclass(frozen=True, slots=True)
class Target:
    """A queue, a worker, or a worker's lane in one queue (both). A worker is pinned, a queue alone lifts a pin."""

    queue: QueueType | None = None
    worker: str | None = None

    @property
    def shown(self) -> str:
        return lane(self.queue, self.worker) if self.queue else str(self.worker)


def moving(target: Target, *, force: bool = False) -> Decide:
    """By the rules of routing: what needs a GPU never enters a lane that a worker without one reads.

    `force` gives it to a worker that cannot take it now, as a forced pin at submit does.
    """

    def decide(look: TaskExplainer, found: TaskHit) -> Step:
        task = found.task
        if task.has_ended:
            return RefusedEdit(f"has ended ({task.state}): morag-queue task retry {task.task_id} runs it again")
        if task.claimed_at is not None:
            return RefusedEdit(f"{task.worker} has it already: only what waits can be moved")
        if not task.is_on_broker:
            return RefusedEdit("is nowhere on the broker: a sweep would send it again")
        place = placement_of(look.snapshot, look.settings, task, worker=target.worker, queue=target.queue, force=force)
        if isinstance(place, Refusal):
            return RefusedEdit(place.message)
        # A queue was named: its shared lane is meant, also where tasks are bound early.
        to = place.lane if target.worker is not None else place.queue.value
        if to == task.lane and task.pinned_to == target.worker:
            return NoChange(f"is in {task.lane} already")
        detail = f"{task.lane} to {to}"
        return rewriting(found, "moved", detail, lane=to, level=place.level, queue=split(to)[0], worker=target.worker)

    return decide


def reprioritising(priority: QueuePriority) -> Decide:
    """It goes behind those that wait at its new level."""

    def decide(look: TaskExplainer, found: TaskHit) -> Step:
        task = found.task
        if task.has_ended:
            return RefusedEdit(f"has ended ({task.state}): morag-queue task retry {task.task_id} runs it again")
        if task.claimed_at is not None:
            return RefusedEdit(f"{task.worker} has it already: a priority matters to what waits")
        if not task.is_on_broker:
            return RefusedEdit("is nowhere on the broker: a sweep would send it again")
        level = level_of(look.snapshot, look.settings, task, priority)
        if (task.priority, task.level) == (priority, level):
            return NoChange(f"is {priority.name} already")
        detail = f"{task.priority.name} to {priority.name}, level {task.level} to {level}"
        return rewriting(found, "changed", detail, lane=task.lane, level=level, priority=priority.name)

    return decide


def work_of(task: Task) -> TaskProfile:
    """What routing reads of it."""
    return TaskProfile(task.requires, task.priority, task.content_type, task.estimated_duration or 0.0)


def placement_of(
    snapshot: Snapshot,
    settings: Settings,
    task: Task,
    *,
    worker: str | None = None,
    queue: QueueType | None = None,
    force: bool = False,
) -> Placement | Refusal:
    """Where it would go if it were submitted now."""
    return Router(snapshot, settings.policy, settings.queues).route(work_of(task), pin=worker, queue=queue, force=force)


def level_of(snapshot: Snapshot, settings: Settings, task: Task, priority: QueuePriority) -> int:
    """The level of another priority, in the lane where the task is: one that its readers poll."""
    wanted = level(
        priority, best_estimate(task.estimated_duration or 0.0, task.requires), settings.policy.order,
        wait_s=max(snapshot.taken_at - (task.enqueued_at or snapshot.taken_at), 0.0),
    )  # fmt: skip
    seated = worker_loads(snapshot, settings.policy)
    _, owner = split(task.lane)
    if owner is not None:
        return polled_levels([seated[owner]] if owner in seated else [])[wanted]
    if task.queue is None:
        return wanted
    return lane_readers(seated.values(), settings.queues).polled[task.queue][wanted]


def rewriting(found: TaskHit, outcome: str, detail: str, *, lane: str, level: int, **entry: Any) -> Update:
    """To `lane` and `level`; `entry` are fields of our header, which the ledger has too (None: taken out)."""
    task = found.task
    assert found.raw is not None
    assert task.level is not None
    record = ""
    if found.record is not None:
        fields = {**found.record, "lane": lane, "level": level, **entry}
        record = json.dumps({name: value for name, value in fields.items() if value is not None})
    change = LaneEdit(
        task_id=task.task_id, lane=task.lane, level=task.level, depth=task.depth or 1, raw=found.raw,
        text=rewritten(found.raw, lane=lane, level=level, **entry), record=record, to_lane=lane, to_level=level,
        to_worker_lane=split(lane)[1] is not None,
    )  # fmt: skip
    before = {"lane": task.lane, "level": task.level, "priority": task.priority.name, "worker": task.pinned_to}
    after = {**before, "lane": lane, "level": level, **{k: v for k, v in entry.items() if k in before}}
    return Update(change, outcome, detail, before, after)
