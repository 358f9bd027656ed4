"""Plan edits of single tasks: cancel, move, change the priority, run again.

A rule turns one task into one step; `plan_edits` applies a rule to many tasks. Refusals and tasks that need no change
are steps, too. The broker re-checks each step when it is applied.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from morag_queue.core.estimate import best_estimate
from morag_queue.core.explain.explain import ReasonCode, explain
from morag_queue.core.lanes import lane as lane_name
from morag_queue.core.lanes import queue_of, split
from morag_queue.core.levels import level as level_of
from morag_queue.core.levels import readable
from morag_queue.core.model import QueuePriority, QueueType, TaskState
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.feasibility import WorkerLoad, worker_loads
from morag_queue.core.routing.lane_readers import LaneReaders, lane_readers, steps_of
from morag_queue.core.routing.router import Router
from morag_queue.core.routing.types import Placement, Refusal, TaskProfile
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.task import Task

from .steps import (
    CancelTask,
    EditableTask,
    EditPlan,
    EditStep,
    NoChange,
    RefusedEdit,
    RestartSource,
    ResubmitTask,
    ReviveTask,
    RevokeTask,
    RewriteTask,
)


@dataclass(frozen=True)
class EditContext:
    """The fleet on which edits are planned. Placements of one context count as load for the tasks after them."""

    snapshot: Snapshot
    policy: Policy
    queues: Queues

    def place(
        self,
        task: Task,
        *,
        worker: str | None = None,
        queue: QueueType | None = None,
        force: bool = False,
        allow_cpu: bool = False,
    ) -> Placement | Refusal:
        """Route the task as if it were submitted now."""
        profile = TaskProfile(task.requires, task.priority, task.content_type, task.estimated_duration or 0.0)
        return self._router.route(profile, pin=worker, queue=queue, force=force, allow_cpu=allow_cpu)

    def level(self, task: Task, priority: QueuePriority) -> int:
        """Return the level of another priority that the readers of the task's lane poll."""
        return level_of(
            priority, best_estimate(task.estimated_duration or 0.0, task.requires), self.policy.order,
            wait_s=max(self.snapshot.taken_at - (task.enqueued_at or self.snapshot.taken_at), 0.0),
            steps=self.steps(task.lane),
        )  # fmt: skip

    @property
    def unsafe(self) -> Mapping[QueueType, str]:
        """The queues closed to work that requires a GPU, each with the reason."""
        return self._readers.unsafe

    def steps(self, lane: str) -> tuple[int, ...]:
        """Return the levels that the readers of a lane poll."""
        queue, owner = queue_of(lane), split(lane)[1]
        if owner is None and queue is not None:
            return self._readers.steps[queue]
        load = self._loads.get(owner or "")
        return steps_of(load.priority_steps if load else None, self.snapshot.steps)

    @cached_property
    def _router(self) -> Router:
        return Router(self.snapshot, self.policy, self.queues)

    @cached_property
    def _loads(self) -> Mapping[str, WorkerLoad]:
        return worker_loads(self.snapshot, self.policy)

    @cached_property
    def _readers(self) -> LaneReaders:
        return lane_readers(self._loads.values(), self.queues, self.snapshot.steps)


Rule = Callable[[EditContext, EditableTask], EditStep]


def plan_edits(context: EditContext, tasks: Iterable[EditableTask], rule: Rule, *, plan_id: str) -> EditPlan:
    return EditPlan(plan_id, context.snapshot.taken_at, tuple(rule(context, task) for task in tasks))


# -- cancel


def cancel(context: EditContext, editable: EditableTask, *, reason: str, terminate: bool) -> EditStep:
    """Cancel a task. `terminate` kills the process of a running one; without it a running task is refused."""
    task = editable.task
    if task.state is TaskState.CANCELLED:
        return NoChange(task.task_id, "is cancelled already")
    if task.has_ended:
        hint = f": morag-queue dead drop {task.task_id} removes it from dead" if editable.is_dead_letter else ""
        return NoChange(task.task_id, f"has ended already ({task.state}){hint}")
    if task.claimed_at is not None:
        return _cancel_held(context, editable, terminate)
    if not task.is_on_broker:
        detail = "has no message on the broker: morag-queue failover --dead sends it again, then it can be cancelled"
        return RefusedEdit(task.task_id, detail)
    return CancelTask(task, reason)


def _cancel_held(context: EditContext, editable: EditableTask, terminate: bool) -> EditStep:
    task = editable.task
    held = explain(task, context.snapshot, context.policy, context.queues, {})
    is_running = held.code is ReasonCode.RUNNING
    if editable.is_revoked and not (terminate and is_running):
        return NoChange(task.task_id, f"is cancelled already: {task.worker} was asked to drop it")
    view = context.snapshot.worker_by_id.get(str(task.worker))
    if view is None or held.code is ReasonCode.HOLDER_OFFLINE:
        return RefusedEdit(task.task_id, f"{held.reason}; then it can be cancelled")
    node = view.info.node or f"{view.info.worker}@{view.info.host}"
    if not is_running:
        detail = f"{task.worker} is asked to drop it: it will not run there or elsewhere"
        return RevokeTask(task, node, view.worker, terminate, detail)
    if not terminate:
        return RefusedEdit(task.task_id, f"{task.worker} runs it: kill its process with --terminate")
    if view.info.pool != "prefork":
        detail = f"{task.worker} runs it in a {view.info.pool} pool, where a running task cannot be killed"
        return RefusedEdit(task.task_id, detail)
    detail = f"{task.worker} is asked to kill the process that runs it; what the task did so far is not undone"
    return RevokeTask(task, node, view.worker, True, detail)


# -- move, change the priority


@dataclass(frozen=True, slots=True)
class MoveTarget:
    """A queue, a worker, or a worker's lane of one queue (both). A worker pins the task, a queue alone lifts a pin."""

    queue: QueueType | None = None
    worker: str | None = None

    @property
    def shown(self) -> str:
        return lane_name(self.queue, self.worker) if self.queue else str(self.worker)


def move(context: EditContext, editable: EditableTask, *, target: MoveTarget, force: bool, allow_cpu: bool) -> EditStep:
    """Move a waiting task by the rules of routing: GPU work stays out of lanes that a worker without a GPU reads.

    `force` allows a worker that cannot take the task now, as a forced pin at submit does; only `allow_cpu` lifts the
    rule for GPU work.
    """
    task = editable.task
    if (refused := _not_waiting(task, "only waiting tasks can be moved")) is not None:
        return refused
    place = context.place(task, worker=target.worker, queue=target.queue, force=force, allow_cpu=allow_cpu)
    if isinstance(place, Refusal):
        return RefusedEdit(task.task_id, place.message)
    # A queue alone means its shared lane, also where the policy binds tasks to workers early.
    lane = place.lane if target.worker is not None else place.queue.value
    if (lane, target.worker) == (task.lane, task.pinned_to):
        return NoChange(task.task_id, f"is in {task.lane} already")
    fields = {"queue": split(lane)[0], "worker": target.worker}
    return RewriteTask(task, lane, place.level, fields, "moved", f"{task.lane} to {lane}")


def prioritise(context: EditContext, editable: EditableTask, *, priority: QueuePriority) -> EditStep:
    """Give a waiting task another priority. It goes behind those that wait at its new level."""
    task = editable.task
    if (refused := _not_waiting(task, "only waiting tasks can change their priority")) is not None:
        return refused
    level = context.level(task, priority)
    if (task.priority, task.level) == (priority, level):
        return NoChange(task.task_id, f"is {priority.name} already")
    detail = f"{task.priority.name} to {priority.name}, level {task.level} to {level}"
    return RewriteTask(task, task.lane, level, {"priority": priority.name}, "changed", detail)


def _not_waiting(task: Task, condition: str) -> RefusedEdit | None:
    if task.has_ended:
        detail = f"has ended ({task.state}): morag-queue task retry {task.task_id} runs it again"
    elif task.claimed_at is not None:
        detail = f"{task.worker} has it already: {condition}"
    elif not task.is_on_broker:
        detail = "has no message on the broker: morag-queue failover --dead sends it again"
    else:
        return None
    return RefusedEdit(task.task_id, detail)


# -- run again


def retry(context: EditContext, editable: EditableTask, *, reset: bool) -> EditStep:
    """Queue an ended task again under its id. `reset` forgets its retries and the workers that died over it."""
    task = editable.task
    if not task.has_ended:
        where = f"{task.worker} has it" if task.claimed_at is not None else f"it waits in {task.lane}"
        return NoChange(task.task_id, f"is open already: {where}")
    place = _restart_place(context, task)
    if isinstance(place, Refusal):
        return RefusedEdit(task.task_id, place.message)
    if editable.restart is RestartSource.DEAD_LETTER:
        return ReviveTask(task, *place, reset)
    if editable.restart is RestartSource.NOTHING:
        return RefusedEdit(task.task_id, "its arguments are no longer stored: submit it again")
    return ResubmitTask(task, *place, context.snapshot.taken_at)


def _restart_place(context: EditContext, task: Task) -> tuple[str, int] | Refusal:
    """Return lane and level by today's routing: its worker may be gone since, or its queue read by CPU workers."""
    pinned = task.pinned_to if task.pinned_to in context.snapshot.worker_by_id else None
    place = context.place(task, worker=pinned, queue=task.queue)
    if isinstance(place, Refusal) and pinned is not None:
        place = context.place(task, queue=task.queue)
    if isinstance(place, Refusal):
        place = context.place(task)
    if isinstance(place, Refusal):
        return place
    # Without an estimate the level cannot be derived from it: keep the one that the producer chose.
    if task.estimated_duration is not None or task.level is None:
        return place.lane, place.level
    return place.lane, readable(task.level, context.steps(place.lane))
