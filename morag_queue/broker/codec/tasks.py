"""Messages, ledger records and dead letters as `Task`."""

from collections.abc import Mapping
from typing import Any

from morag_queue.core import lanes
from morag_queue.core.model import ContentType, HeldMessage, QueueType, Requires, TaskQueueEntry, TaskState
from morag_queue.core.task import Task

from .dead_letters import DeadLetter
from .fields import count, member, moment, number, priority, word
from .messages import header_of, read_arguments, read_message
from .records import LedgerRecord

_TIMES = ("started_at", "wait_seconds", "run_seconds")
"""Fields of an ended record."""


def waiting_task(
    raw: bytes | str, lane: str, level: int, depth: int | None = None, position: int | None = None
) -> Task | None:
    """Read a message in a lane; None for a text that is not Celery's."""
    message = read_message(raw)
    if message is None:
        return None
    headers = message["headers"]
    retries = count(headers.get("retries"))
    return Task(
        task_id=word(headers.get("id")),
        state=TaskState.RETRYING if retries else TaskState.QUEUED,
        task=word(headers.get("task")),
        source=str(headers.get("argsrepr") or ""),
        lane=lane,
        level=level,
        depth=depth,
        position=position,
        eta_at=moment(headers.get("eta")),
        retries=retries,
        **_entry_fields(header_of(message), lane, level),
    )


def held_task(held: HeldMessage, raw: str | None, record: LedgerRecord | None, *, attempts: int = 0) -> Task:
    """A task that a worker holds. `raw` is None for one that was acknowledged before it ran."""
    task = waiting_task(raw, held.lane, held.level) if raw is not None else None
    task = task or _without_message(held.task_id, record, held.lane, held.level)
    more = {"state": TaskState.RUNNING, "worker": held.worker, "claimed_at": held.claimed_at, "attempts": attempts}
    return with_record(task, record, **more)


def unread_task(task_id: str, record: LedgerRecord, depth: int, position: int, attempts: int) -> Task:
    """A task whose message was not read, because it is deep in a long list."""
    task = _without_message(task_id, record, record.lane, record.level or 0)
    return with_record(task, record, depth=depth, position=position, attempts=attempts, is_estimated=True)


def lost_task(task_id: str, record: LedgerRecord, attempts: int) -> Task:
    """A task that is open in the ledger and has no message on the broker."""
    task = _without_message(task_id, record, record.lane, record.level or 0)
    return with_record(task, record, is_on_broker=False, attempts=attempts)


def dead_task(dead: DeadLetter, record: LedgerRecord | None = None) -> Task:
    """A task in `dead`. Fields that it lacks come from its message or its ledger record."""
    task = waiting_task(dead.message, dead.lane, dead.level) if dead.message is not None else None
    task = task or _without_message(dead.task_id, record, dead.lane, dead.level)
    more = {
        "task_id": dead.task_id, "state": dead.state, "lane": dead.lane, "level": dead.level,
        "ended_at": number(dead.fields.get("at")), "error": dead.reason,
        "worker": (dead.story[-1][1] if dead.story else "") or None, "attempts": max(len(dead.story), 1),
    }  # fmt: skip
    if dead.source:
        more["source"] = dead.source
    return with_run_times(task.model_copy(update=more), record)


def ended_task(task_id: str, state: TaskState, record: LedgerRecord) -> Task:
    """A task whose ledger record is closed."""
    submitted = record.submitted
    has_entry = submitted is not record
    fields = {**submitted.fields, **record.fields}
    known = LedgerRecord(fields)
    # `worker` of an ended record is the one that ran it, of an open record the one that it was pinned to.
    pinned = {"worker": submitted.fields.get("worker") if has_entry else None}
    task = Task(
        task_id=task_id, state=state, lane=known.lane, level=known.level,
        **_entry_fields({**fields, **pinned}, known.lane, known.level or 0),
    )  # fmt: skip
    more: dict[str, Any] = {name: number(record.fields.get(name)) for name in (*_TIMES, "ended_at")}
    # A cancelled or quarantined record without a start names the worker that it was pinned to.
    has_run = state in (TaskState.COMPLETED, TaskState.FAILED) or record.fields.get("started_at") is not None
    ran_by = word(record.fields.get("worker")) if has_run else ""
    return with_record(task, known, **more, worker=ran_by or None, error=word(record.fields.get("error")))


def with_record(task: Task, record: LedgerRecord | None, **more: Any) -> Task:
    """Complete a task from its ledger record: only that has the source, a message has its arguments as text."""
    if record is not None:
        more = {"is_known": True, "task": task.task or record.task, **more}
        if record.source:
            more["source"] = record.source
    return task.model_copy(update=more)


def with_run_times(task: Task, record: LedgerRecord | None) -> Task:
    """Complete an ended task from its ended record."""
    times = {name: number(record.fields.get(name)) for name in _TIMES} if record is not None else {}
    return with_record(task, record, **times)


def submitted_entry(task_id: str, record: LedgerRecord, queue: QueueType | None) -> TaskQueueEntry | None:
    """Return the entry as it was submitted, but in a shared lane: the worker of its own lane may be the one that died.

    `queue` replaces the queue of the record. None for a record without a queue or without arguments.
    """
    queue = queue or member(QueueType, record.queue)
    arguments = record.arguments
    if queue is None or arguments is None:
        return None
    args, kwargs = arguments
    return TaskQueueEntry(
        task_id=task_id,
        task=record.task,
        args=tuple(args),
        kwargs=kwargs,
        source=record.source,
        content_type=record.content_type,
        priority=record.priority,
        requires=record.requires,
        queue=queue,
        lane=queue.value,
        level=record.level or 0,
        estimated_duration=record.estimated_minutes or 0.0,
        enqueued_at=record.enqueued_at or 0.0,
        worker=record.worker,
        submission=record.submission,
    )


def waiting_entry(task: Task, raw: bytes | str, attempts: int, max_retries: int) -> TaskQueueEntry | None:
    """Return a waiting task as an entry; None in a lane of none of our queues.

    `worker` is the owner of its lane. Without a JSON body it has no arguments.
    """
    args, kwargs = read_arguments(read_message(raw)) or ((), {})
    if task.queue is None or task.level is None or not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        return None
    return TaskQueueEntry(
        task_id=task.task_id,
        task=task.task,
        args=tuple(args),
        kwargs=kwargs,
        source=task.source,
        content_type=task.content_type,
        priority=task.priority,
        requires=task.requires,
        queue=task.queue,
        lane=task.lane,
        level=task.level,
        estimated_duration=task.estimated_duration or 0.0,
        enqueued_at=task.enqueued_at or 0.0,
        worker=task.lane_owner,
        retry_count=attempts,
        max_retries=max_retries,
        submission=task.submission,
    )


def _without_message(task_id: str, record: LedgerRecord | None, lane: str, level: int) -> Task:
    fields = _entry_fields(record.fields if record is not None else {}, lane, level)
    return Task(task_id=task_id, state=TaskState.QUEUED, lane=lane, level=level, **fields)


def _entry_fields(fields: Mapping[str, Any], lane: str, level: int) -> dict[str, Any]:
    """Read the fields that our header and the ledger share. The queue follows from the lane."""
    return {
        "priority": priority(fields.get("priority"), level),
        "requires": member(Requires, fields.get("requires")) or Requires.CPU,
        "content_type": member(ContentType, fields.get("content_type")),
        "queue": lanes.queue_of(lane),
        "pinned_to": word(fields.get("worker")) or None,
        "enqueued_at": number(fields.get("enqueued_at")),
        "estimated_duration": number(fields.get("estimated_minutes")),
        "submission": word(fields.get("submission")) or None,
    }
