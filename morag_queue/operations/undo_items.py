"""What a change records of each task for its undo, and how an undo reads it back."""

from collections.abc import Iterator, Mapping
from typing import Any

from morag_queue.broker.codec import waiting_task
from morag_queue.broker.journal import BEGUN
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.task_hit import TaskHit
from morag_queue.broker.undo import DoneItem
from morag_queue.core.edits.steps import (
    CancelTask,
    EditStep,
    NoChange,
    RecordedTask,
    RefusedEdit,
    RestoreTask,
    ResubmitTask,
    ReturnTask,
    ReviveTask,
    RevokeTask,
    RewriteTask,
    outcome_of,
)
from morag_queue.core.model import JournalEntry, TaskState

State = Mapping[str, Any]
"""Fields of a task before or after a change, as the journal shows them."""


def states(step: EditStep) -> tuple[State, State]:
    """Return the state of a task before and after a step."""
    match step:
        case CancelTask(task=task):
            return {"lane": task.lane, "level": task.level}, {"state": "cancelled"}
        case ReturnTask(task=task):
            return {"lane": task.lane, "level": task.level}, {"state": step.ended.before.get("state")}
        case RewriteTask(task=task):
            before = {"lane": task.lane, "level": task.level, "priority": task.priority.name, "worker": task.pinned_to}
            fields = {name: value for name, value in step.fields.items() if name in before}
            return before, {**before, "lane": step.lane, "level": step.level, **fields}
        case RevokeTask():
            return {"worker": step.worker}, {}
        case ReviveTask(task=task) | ResubmitTask(task=task) | RestoreTask(task=task):
            return {"state": task.state.value, "ended_at": task.ended_at}, {"lane": step.lane}
        case NoChange() | RefusedEdit():
            return {}, {}


def undo_item(step: EditStep, hit: TaskHit) -> dict[str, Any]:
    """Return what an undo of the step needs."""
    before, after = states(step)
    item: dict[str, Any] = {"id": step.task_id, "outcome": outcome_of(step), "before": before, "after": after}
    match step:
        case CancelTask() | ReturnTask():
            item |= {"text": hit.raw, "record": hit.record.text if hit.record is not None else ""}
        case ReviveTask() | ResubmitTask() | RestoreTask():
            item["record"] = hit.record.text if hit.record is not None else ""
            if hit.dead is not None:
                item |= {"letter": hit.dead.text.decode(), "letter_at": hit.dead.at}
        case _:
            pass
    return item


def recorded_tasks(broker: RedisBroker, entry: JournalEntry) -> Iterator[tuple[str, RecordedTask]]:
    """Yield the tasks of a change with what was recorded of each, the last first.

    Of an entry whose record has expired, or of an earlier version: the tasks that the entry names.
    """
    at = None if entry.changes.get("state") == BEGUN else entry.at
    with broker.translated():
        is_recorded = broker.undo.exists(entry.plan_id)
        if is_recorded:
            yield from ((str(done.item.get("id")), _recorded(done, at)) for done in broker.undo.done(entry.plan_id))
    if not is_recorded:
        tasks = entry.changes.get("tasks")
        named = list(tasks.items()) if isinstance(tasks, dict) else []
        yield from ((task_id, _named(value)) for task_id, value in reversed(named))


def taken_task(task_id: str, recorded: RecordedTask) -> TaskHit | None:
    """Return a task that a change took out of its lane, and whose record has expired since; None for others.

    One that never had a record may be open again.
    """
    lane, level = recorded.before.get("lane"), recorded.before.get("level")
    if not recorded.text or not recorded.record or not isinstance(lane, str) or not isinstance(level, int):
        return None
    task = waiting_task(recorded.text, lane, level)
    state = {"task_id": task_id, "state": TaskState(recorded.after.get("state") or TaskState.CANCELLED)}
    return None if task is None else TaskHit(task.model_copy(update=state))


def _recorded(done: DoneItem, at: float | None) -> RecordedTask:
    item, found = done.item, done.found if isinstance(done.found, list) else []
    outcome = str(item.get("outcome"))
    if outcome == "dropped" and len(found) == 2:
        at_text, letter = found
        return RecordedTask(outcome, {}, {}, letter=letter, letter_at=float(at_text), at=at)
    _, deaths, story, *_ = (*found, None, None, None)
    return RecordedTask(
        outcome=outcome, before=item.get("before") or {}, after=item.get("after") or {},
        text=item.get("text") or "", record=item.get("record") or "", letter=item.get("letter") or "",
        letter_at=item.get("letter_at") or 0.0, place=done.place,
        deaths=int(deaths or 0), story=story or "", at=at,
    )  # fmt: skip


def _named(value: Any) -> RecordedTask:
    match value:
        case [str() as lane, int() as level, str() as to_lane, int() as to_level, *_]:  # of the balancing loop
            return RecordedTask("moved", {"lane": lane, "level": level}, {"lane": to_lane, "level": to_level})
        case {"outcome": str() as outcome}:
            before, after = value.get("before"), value.get("after")
            return RecordedTask(
                outcome, before if isinstance(before, dict) else {}, after if isinstance(after, dict) else {}
            )  # fmt: skip
        case _:
            return RecordedTask("", {}, {})
