"""Apply the edits that `core.edits` planned. Each is re-checked; a task that has changed since is skipped."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar, assert_never
from uuid import uuid4

from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.codec import (
    minimal_record,
    read_record,
    renew_message,
    rewrite_message,
    withdrawn_record,
    write_story,
)
from morag_queue.broker.dead_letters import Restart
from morag_queue.broker.lanes import LaneEdit, LaneEdits
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.task_hit import TaskHit
from morag_queue.core.edits.steps import (
    CancelTask,
    EditPlan,
    EditStep,
    NoChange,
    RefusedEdit,
    RestoreTask,
    ResubmitTask,
    ReturnTask,
    ReviveTask,
    RevokeTask,
    RewriteTask,
    outcome_of,
)
from morag_queue.core.lanes import split
from morag_queue.core.model import QueueType, TaskQueueEntry, TaskState
from morag_queue.core.plan import Applied, Rejected

from .undo_items import undo_item


class AppliedEdits(NamedTuple):
    """The counts, and for each step whether it was applied; a step whose task has changed since is not."""

    applied: Applied
    done: list[bool]


def apply_edits(
    broker: RedisBroker, plan: EditPlan, hits: Sequence[TaskHit], *, change_id: str = "", dry_run: bool = False
) -> AppliedEdits:
    """Apply a plan. `hits` are its tasks as they were read, in the order of its steps.

    What is done is recorded for the undo of the change `change_id`. In a dry run nothing is sent, and the counts are
    those of the plan.
    """
    with broker.translated():
        done = [True] * len(hits) if dry_run else _apply_steps(broker, plan, hits, change_id)
    counts = Counter(outcome_of(step) for step, was_applied in zip(plan.steps, done, strict=True) if was_applied)
    rejected = tuple(
        Rejected(task_id=step.task_id, reason=step.detail) for step in plan.steps if isinstance(step, RefusedEdit)
    )
    applied = Applied(
        plan_id=plan.plan_id, cancelled=counts["cancelled"], moved=counts["moved"], changed=counts["changed"],
        revoked=counts["revoked"], queued=counts["queued"], returned=counts["returned"],
        unchanged=counts["unchanged"], rejected=rejected,
    )  # fmt: skip
    return AppliedEdits(applied, done)


def _apply_steps(broker: RedisBroker, plan: EditPlan, hits: Sequence[TaskHit], change_id: str) -> list[bool]:
    """Return for each step whether it was applied.

    Lanes are edited first: if a lane's key has another type, that fails before any worker is asked to drop a task.
    """
    edits: dict[int, LaneEdit] = {}
    restarts: dict[int, Restart] = {}
    builder = MessageBuilder()
    for n, (step, hit) in enumerate(zip(plan.steps, hits, strict=True)):
        match step:
            case CancelTask():
                edits[n] = withdrawal(hit, TaskState.CANCELLED, step.reason, plan.taken_at)
            case RewriteTask():
                edits[n] = _rewritten(step, hit)
            case ReturnTask():
                edits[n] = _returned(step, hit)
            case ReviveTask():
                restarts[n] = _revived(step, hit)
            case ResubmitTask():
                restarts[n] = _resubmitted(step, hit, builder)
            case RestoreTask():
                restarts[n] = _restored(step, hit)
            case RevokeTask() | NoChange() | RefusedEdit():
                pass
            case unknown:
                assert_never(unknown)
    done = [True] * len(hits)
    lane_edits = LaneEdits(broker.client, broker.keys, broker.settings.ledger.retention_seconds)
    recorded_edits = [_with_undo(plan.steps[n], hits[n], edit) for n, edit in edits.items()]
    for n, is_done in zip(edits, lane_edits.apply(recorded_edits, change_id), strict=True):
        done[n] = is_done
    recorded_restarts = [_with_undo(plan.steps[n], hits[n], restart) for n, restart in restarts.items()]
    for n, is_done in zip(restarts, broker.dead.restart(recorded_restarts, change_id), strict=True):
        done[n] = is_done
    _revoke(broker, plan, hits, change_id)
    return done


E = TypeVar("E", LaneEdit, Restart)


def _with_undo(step: EditStep, hit: TaskHit, edit: E) -> E:
    return replace(edit, undo=undo_item(step, hit))


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
        to_lane=lane, to_level=level, to_worker_lane=_is_worker_lane(lane), place=step.place,
    )  # fmt: skip


def _returned(step: ReturnTask, hit: TaskHit) -> LaneEdit:
    task, raw, ended = step.task, hit.raw, step.ended
    assert raw is not None, "a waiting task has a message"
    return LaneEdit(
        task_id=task.task_id, lane=task.lane, level=task.level or 0, depth=task.depth or 1, raw=raw, text=None,
        record=ended.record, outcome="", letter=ended.letter, letter_at=ended.letter_at,
    )  # fmt: skip


def _revived(step: ReviveTask, hit: TaskHit) -> Restart:
    dead, lane, level = hit.dead, step.lane, step.level
    assert dead is not None, "the plan is made from a dead letter"
    text = _renewed(dead.message, lane, level, keep_retries=not step.reset)
    record = dead.new_record(lane, level) if hit.record is None else hit.record.reopened(lane, level)
    keeps_story = step.task.state is TaskState.QUARANTINED and not step.reset
    story = dead.story if keeps_story else ()
    return _restart(step, hit, text, record, story=write_story(story), deaths=len(story))


def _resubmitted(step: ResubmitTask, hit: TaskHit, builder: MessageBuilder) -> Restart:
    record, task, lane, level = hit.restart_record, step.task, step.lane, step.level
    assert record is not None, "the plan is made from a record"
    if record.message is not None:
        return _restart(step, hit, _renewed(record.message, lane, level), minimal_record(task, lane, level))
    args, kwargs = record.arguments or ([], {})
    return _restart(step, hit, *builder.message(_entry(step, args, kwargs)))


def _restored(step: RestoreTask, hit: TaskHit) -> Restart:
    taken, lane, level = step.taken, step.lane, step.level
    text, record = taken.text, taken.record
    if (lane, level) != (taken.before["lane"], taken.before["level"]):
        text = rewrite_message(text, lane=lane, level=level) or text
        known = read_record(record)
        record = "" if known is None else known.moved(lane, level, {})
    restart = _restart(step, hit, text, record, story=taken.story, deaths=taken.deaths)
    return replace(restart, place=taken.place)


def _restart(
    step: ReviveTask | ResubmitTask | RestoreTask,
    hit: TaskHit,
    text: str,
    record: str,
    *,
    story: str = "",
    deaths: int = 0,
) -> Restart:
    return Restart(
        task_id=step.task_id, lane=step.lane, level=step.level, message=text, record=record, story=story, deaths=deaths,
        letter=hit.dead.text if hit.dead is not None else "", seen=hit.record.text if hit.record is not None else "",
    )  # fmt: skip


def _revoke(broker: RedisBroker, plan: EditPlan, hits: Sequence[TaskHit], change_id: str) -> None:
    orders = [(step, hit) for step, hit in zip(plan.steps, hits, strict=True) if isinstance(step, RevokeTask)]
    for step, hit in orders:
        # Recorded first: a requeue of the message then ends the task instead of giving it to another worker.
        if hit.tag is not None:
            broker.requeues.revoke(hit.tag)
        broker.control.revoke(step.node, step.task_id, terminate=step.terminate)
    if orders and change_id:
        broker.undo.append(change_id, [undo_item(*order) for order in orders])


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
