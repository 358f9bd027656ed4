"""Apply the edits that `core.edits` planned. Each is re-checked; a task that has changed since is skipped."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, assert_never
from uuid import uuid4

from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.codec import minimal_record, renew_message, rewrite_message, withdrawn_record
from morag_queue.broker.contract import OutgoingMessage
from morag_queue.broker.lanes import LaneEdit, LaneEdits
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.task_hit import TaskHit
from morag_queue.core.edits.steps import (
    CancelTask,
    EditPlan,
    EditStep,
    NoChange,
    RefusedEdit,
    ResubmitTask,
    ReviveTask,
    RevokeTask,
    RewriteTask,
)
from morag_queue.core.lanes import split
from morag_queue.core.model import QueueType, TaskQueueEntry, TaskState
from morag_queue.core.plan import Applied, Rejected


class AppliedEdits(NamedTuple):
    """The counts, and for each step whether it was applied; a step whose task has changed since is not."""

    applied: Applied
    done: list[bool]


def apply_edits(broker: RedisBroker, plan: EditPlan, hits: Sequence[TaskHit], *, dry_run: bool = False) -> AppliedEdits:
    """Apply a plan. `hits` are its tasks as they were read, in the order of its steps.

    In a dry run nothing is sent, and the counts are those of the plan.
    """
    with broker.translated():
        done = [True] * len(hits) if dry_run else _apply_steps(broker, plan, hits)
    counts = Counter(outcome_of(step) for step, was_applied in zip(plan.steps, done, strict=True) if was_applied)
    rejected = tuple(
        Rejected(task_id=step.task_id, reason=step.detail) for step in plan.steps if isinstance(step, RefusedEdit)
    )
    applied = Applied(
        plan_id=plan.plan_id, cancelled=counts["cancelled"], moved=counts["moved"], changed=counts["changed"],
        revoked=counts["revoked"], queued=counts["queued"], unchanged=counts["unchanged"], rejected=rejected,
    )  # fmt: skip
    return AppliedEdits(applied, done)


def outcome_of(step: EditStep) -> str:
    """Return the outcome of an applied step: the name of a count of `Applied`, or "refused"."""
    match step:
        case CancelTask():
            return "cancelled"
        case RewriteTask():
            return step.outcome
        case RevokeTask():
            return "revoked"
        case ReviveTask() | ResubmitTask():
            return "queued"
        case NoChange():
            return "unchanged"
        case RefusedEdit():
            return "refused"
        case _:
            assert_never(step)


def _apply_steps(broker: RedisBroker, plan: EditPlan, hits: Sequence[TaskHit]) -> list[bool]:
    """Return for each step whether it was applied.

    Lanes are edited first: if a lane's key has another type, that fails before any worker is asked to drop a task.
    """
    edits: dict[int, LaneEdit] = {}
    others: list[tuple[int, _SingleStep]] = []
    for n, step in enumerate(plan.steps):
        if isinstance(step, CancelTask):
            edits[n] = withdrawal(hits[n], TaskState.CANCELLED, step.reason, plan.taken_at)
        elif isinstance(step, RewriteTask):
            edits[n] = _rewritten(step, hits[n])
        else:
            others.append((n, step))
    lane_edits = LaneEdits(broker.client, broker.keys, broker.settings.ledger.retention_seconds)
    done = dict(zip(edits, lane_edits.apply(list(edits.values())), strict=True))
    builder = MessageBuilder()
    done |= {n: _apply_single(broker, step, hits[n], builder) for n, step in others}
    return [done[n] for n in range(len(hits))]


_SingleStep = RevokeTask | ReviveTask | ResubmitTask | NoChange | RefusedEdit


def _apply_single(broker: RedisBroker, step: _SingleStep, hit: TaskHit, builder: MessageBuilder) -> bool:
    match step:
        case RevokeTask():
            _revoke(broker, step, hit)
            return True
        case ReviveTask():
            return _revive(broker, step, hit)
        case ResubmitTask():
            return all(broker.submit([_outgoing(step, hit, builder)]))
        case NoChange() | RefusedEdit():
            return True
        case _:
            assert_never(step)


def withdrawal(hit: TaskHit, state: TaskState, reason: str, at: float) -> LaneEdit:
    """Take a waiting task out of its lane and end it in that state."""
    task, raw = hit.task, hit.raw
    assert raw is not None, "a waiting task has a message"
    return LaneEdit(
        task_id=task.task_id, lane=task.lane, level=task.level or 0, depth=task.depth or 1, raw=raw, text=None,
        record=withdrawn_record(hit.record, raw, task, state, reason, at),
        queue=task.queue.value if task.queue else "", outcome=state,
    )  # fmt: skip


def _rewritten(step: RewriteTask, hit: TaskHit) -> LaneEdit:
    task, raw, lane, level = step.task, hit.raw, step.lane, step.level
    assert raw is not None, "a waiting task has a message"
    return LaneEdit(
        task_id=task.task_id, lane=task.lane, level=task.level or 0, depth=task.depth or 1, raw=raw,
        text=rewrite_message(raw, lane=lane, level=level, fields=step.fields),
        record="" if hit.record is None else hit.record.moved(lane, level, step.fields),
        to_lane=lane, to_level=level, to_worker_lane=_is_worker_lane(lane),
    )  # fmt: skip


def _revoke(broker: RedisBroker, step: RevokeTask, hit: TaskHit) -> None:
    # Recorded first: a requeue of the message then ends the task instead of giving it to another worker.
    if hit.tag is not None:
        broker.requeues.revoke(hit.tag)
    broker.control.revoke(step.node, step.task_id, terminate=step.terminate)


def _revive(broker: RedisBroker, step: ReviveTask, hit: TaskHit) -> bool:
    dead, lane, level = hit.dead, step.lane, step.level
    assert dead is not None, "the plan is made from a dead letter"
    text = _renewed(dead.message, lane, level, keep_retries=not step.reset)
    record = dead.new_record(lane, level) if hit.record is None else hit.record.reopened(lane, level)
    keeps_story = step.task.state is TaskState.QUARANTINED and not step.reset
    return broker.dead.revive(
        dead, text, record, lane, level, is_worker_lane=_is_worker_lane(lane), story=dead.story if keeps_story else ()
    )


def _outgoing(step: ResubmitTask, hit: TaskHit, builder: MessageBuilder) -> OutgoingMessage:
    record, task, lane, level = hit.restart_record, step.task, step.lane, step.level
    assert record is not None, "the plan is made from a record"
    queue = split(lane)[0]
    if record.message is not None:
        text, new_record = _renewed(record.message, lane, level), minimal_record(task, lane, level)
    else:
        args, kwargs = record.arguments or ([], {})
        text, new_record = builder.message(_entry(step, args, kwargs))
    return OutgoingMessage(task.task_id, text, new_record, queue, lane, level, _is_worker_lane(lane))


def _renewed(message: str | None, lane: str, level: int, *, keep_retries: bool = False) -> str:
    text = renew_message(message or "", lane=lane, level=level, tag=str(uuid4()), keep_retries=keep_retries)
    assert text is not None, "a lookup offers no restart from a message that is not Celery's"
    return text


def _entry(step: ResubmitTask, args: list[object], kwargs: dict[str, object]) -> TaskQueueEntry:
    task = step.task
    return TaskQueueEntry(
        task_id=task.task_id, task=task.task, args=tuple(args), kwargs=kwargs, source=task.source,
        content_type=task.content_type, priority=task.priority, requires=task.requires,
        queue=QueueType(split(step.lane)[0]), lane=step.lane, level=step.level,
        estimated_duration=task.estimated_duration or 0.0, enqueued_at=step.enqueued_at, worker=task.pinned_to,
        submission=task.submission,
    )  # fmt: skip


def _is_worker_lane(lane: str) -> bool:
    return split(lane)[1] is not None
