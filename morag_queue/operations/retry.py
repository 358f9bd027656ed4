"""task retry, dead requeue: a task that has ended or was set aside, once more, with all that it had."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from morag_queue.broker.codec import fresh, rewritten
from morag_queue.broker.contract import OutgoingMessage
from morag_queue.broker.task_lookup import TaskHit
from morag_queue.core.lanes import split
from morag_queue.core.model import QueueType, TaskQueueEntry
from morag_queue.core.routing.types import Refusal
from morag_queue.core.task import Task

from .task import TaskExplainer
from .task_editor import Decide, NoChange, RefusedEdit, Resubmit, Revive, Step
from .task_edits import placement_of

if TYPE_CHECKING:
    from morag_queue.broker.celery_message import MessageBuilder


def retrying(wire: "Callable[[], MessageBuilder]", *, reset: bool) -> Decide:
    """`reset` forgets how often it was taken back and its own retries: it starts as if it were new."""

    def decide(look: TaskExplainer, found: TaskHit) -> Step:
        task = found.task
        if not task.has_ended:
            where = f"{task.worker} has it" if task.claimed_at is not None else f"it waits in {task.lane}"
            return NoChange(f"is open already: {where}")
        if found.grave is not None and isinstance(found.grave.get("message"), str):
            return _out_of_dead(look, found, reset)
        return _again(look, found, wire)

    return decide


def _place(look: TaskExplainer, task: Task) -> tuple[str, int] | None:
    """Where routing sends it today: its worker may be gone, its queue paused."""
    pinned = task.pinned_to if task.pinned_to in look.snapshot.worker_by_id else None
    place = placement_of(look.snapshot, look.settings, task, worker=pinned, queue=task.queue)
    if isinstance(place, Refusal) and pinned is not None:
        place = placement_of(look.snapshot, look.settings, task, queue=task.queue)
    if isinstance(place, Refusal):
        return None
    return place.lane, place.level if task.estimated_duration is not None or task.level is None else task.level


def _out_of_dead(look: TaskExplainer, found: TaskHit, reset: bool) -> Step:
    task = found.task
    grave = look.grave(task.task_id)
    if grave is None or grave.message is None:
        return RefusedEdit("is no longer in dead: look again with morag-queue task show")
    place = _place(look, task) or (task.lane, task.level or 0)
    lane, level = place
    text = fresh(rewritten(grave.message, lane=lane, level=level, tag=str(uuid4())), keep_retries=not reset)
    story = [] if reset or task.state != "quarantined" else grave.fields.get("story") or []
    record = _open_again(found, lane, level)
    return Revive(grave, text, record, lane, level, split(lane)[1] is not None, story)


def _open_again(found: TaskHit, lane: str, level: int) -> str:
    """The ledger's entry as it was while it was open; '' where it never had one."""
    record = found.record
    if record is None:
        return ""
    entry = record.get("entry") if isinstance(record.get("entry"), dict) else record
    return json.dumps({**entry, "state": "queued", "lane": lane, "level": level}) if entry else ""


def _again(look: TaskExplainer, found: TaskHit, wire: "Callable[[], MessageBuilder]") -> Step:
    task, record = found.task, found.record or {}
    entry: dict[str, Any] = record.get("entry") or (found.grave or {}).get("entry") or {}
    if isinstance(entry, str):
        entry = json.loads(entry)
    place = _place(look, task)
    if place is None:
        return RefusedEdit(f"no lane of {task.queue} is safe for it: see morag-queue task why {task.task_id}")
    lane, level = place
    queue = split(lane)[0]
    if isinstance(entry.get("message"), str):
        text = fresh(rewritten(entry["message"], lane=lane, level=level, tag=str(uuid4())), keep_retries=False)
        return Resubmit(
            OutgoingMessage(task.task_id, text, _bare(task, lane, level), queue, lane, level, lane != queue)
        )
    if "args" not in entry:
        return RefusedEdit("its arguments are no longer known: submit it again")
    again = TaskQueueEntry(
        task_id=task.task_id, task=task.task, args=tuple(entry["args"]), kwargs=entry.get("kwargs") or {},
        source=task.source, content_type=task.content_type, priority=task.priority, requires=task.requires,
        queue=QueueType(queue), lane=lane, level=level, estimated_duration=task.estimated_duration or 0.0,
        enqueued_at=look.snapshot.taken_at, worker=task.pinned_to,
    )  # fmt: skip
    text, new_record = wire().message(again)
    return Resubmit(OutgoingMessage(task.task_id, text, new_record, queue, lane, level, lane != queue))


def _bare(task: Task, lane: str, level: int) -> str:
    """What the ledger can say of a task that it had not known: a message of plain Celery's, cancelled and back."""
    return json.dumps(
        {"state": "queued", "task": task.task, "lane": lane, "level": level, "priority": task.priority.name}
    )
