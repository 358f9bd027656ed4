"""Plan the undo of a change, task by task: from what the change recorded, and what the task is now.

A task that has started, ended or been changed again since keeps its state; the step says why. An undo is a change like
others: its own undo does the change again.
"""

from morag_queue.core.lanes import queue_of, split
from morag_queue.core.levels import readable
from morag_queue.core.model import Requires, TaskState, WorkerStatus
from morag_queue.core.task import Task

from .rules import EditContext, cancel, retry
from .steps import (
    EditableTask,
    EditStep,
    NoChange,
    RecordedTask,
    RefusedEdit,
    RestoreTask,
    ReturnTask,
    RewriteTask,
)

_LAST = 1 << 30
"""The place of a task whose place was not recorded: the last one that its enqueue time allows."""

_IN_HEADER = ("priority", "worker")

_CLOCK_STEP = 0.002
"""Times of ends are rounded to a millisecond, ids of entries rounded down to one; in seconds."""


def undo(context: EditContext, editable: EditableTask, recorded: RecordedTask | None, *, reason: str) -> EditStep:
    """Take back what a change did to one task. `reason` is for the record of a task that is cancelled by it."""
    task_id = editable.task.task_id
    match recorded:
        case RecordedTask(outcome="cancelled" | "returned"):
            return _restored(context, editable, recorded)
        case RecordedTask(outcome="queued"):
            return _returned(context, editable, recorded, reason)
        case RecordedTask(outcome="revoked"):
            return RefusedEdit(task_id, "an order to a worker cannot be undone")
        case RecordedTask(before={"lane": str(), "level": int()}, after={"lane": str()}):
            return _moved_back(context, editable.task, recorded)
    return RefusedEdit(task_id, "the journal does not record its state before the change")


def _restored(context: EditContext, editable: EditableTask, taken: RecordedTask) -> EditStep:
    task = editable.task
    if not task.has_ended:
        where = f"{task.worker} has it" if task.claimed_at is not None else f"it waits in {task.lane}"
        return NoChange(task.task_id, f"is open already: {where}")
    if task.state != taken.after.get("state", TaskState.CANCELLED):
        return RefusedEdit(task.task_id, f"was queued again since, and has ended ({task.state})")
    if taken.at is not None and task.ended_at is not None and task.ended_at > taken.at + _CLOCK_STEP:
        return RefusedEdit(task.task_id, f"was queued again since, and is {task.state} by another change")
    if not taken.text:
        return retry(context, editable, reset=True)
    place = _place(context, task, taken)
    return place if isinstance(place, RefusedEdit) else RestoreTask(task, *place, taken)


def _returned(context: EditContext, editable: EditableTask, ended: RecordedTask, reason: str) -> EditStep:
    task = editable.task
    if task.claimed_at is not None:
        return RefusedEdit(task.task_id, f"{task.worker} has it already")
    if not ended.record and not ended.letter:
        return cancel(context, editable, reason=reason or "its retry was undone", terminate=False)
    if task.has_ended:
        if (task.state, task.ended_at) == (ended.before.get("state"), ended.before.get("ended_at")):
            return NoChange(task.task_id, f"is {task.state} already, as before the change")
        return RefusedEdit(task.task_id, f"has run since, and has ended ({task.state})")
    if not task.is_on_broker:
        return RefusedEdit(task.task_id, "it no longer waits")
    return ReturnTask(task, ended)


def _moved_back(context: EditContext, task: Task, moved: RecordedTask) -> EditStep:
    if task.has_ended or task.claimed_at is not None or not task.is_on_broker:
        return RefusedEdit(task.task_id, "it no longer waits")
    before, after = moved.before, moved.after
    now = {"lane": task.lane, "level": task.level, "priority": task.priority.name, "worker": task.pinned_to}
    ours = {name: value for name, value in after.items() if name in now}
    if all(now[name] == value for name, value in before.items() if name in now):
        return NoChange(task.task_id, "is as before the change already")
    # A message of plain Celery has no header that could keep its priority or its pin.
    if any(now[name] not in (value, before.get(name) if name in _IN_HEADER else value) for name, value in ours.items()):
        return RefusedEdit(task.task_id, "it has been changed again since")
    place = _place(context, task, moved)
    if isinstance(place, RefusedEdit):
        return place
    lane, level = place
    fields = {name: before[name] for name in ("priority", "worker") if name in before}
    if (queue := queue_of(lane)) is not None:
        fields["queue"] = queue.value
    return RewriteTask(task, lane, level, fields, "moved", f"back to {lane}", moved.place or _LAST)


def _place(context: EditContext, task: Task, recorded: RecordedTask) -> tuple[str, int] | RefusedEdit:
    """Return the lane and level before the change; of a worker that is gone or drained since, the shared lane."""
    lane, level = str(recorded.before["lane"]), int(recorded.before["level"])
    queue, owner = queue_of(lane), split(lane)[1]
    if queue is not None and owner is not None and not _may_have_work(context, owner):
        lane = queue.value
    if queue is not None and task.requires is Requires.GPU and (why := context.unsafe.get(queue)):
        return RefusedEdit(task.task_id, f"it requires a GPU, and {why}")
    return lane, readable(level, context.steps(lane))


def _may_have_work(context: EditContext, worker: str) -> bool:
    view = context.snapshot.worker_by_id.get(worker)
    return view is not None and (view.cordon is None or view.cordon.state is WorkerStatus.CORDONED)
