"""apply(plan) → Applied: carries a plan out step by step; what no longer fits is refused, and said."""

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Any, assert_never

from morag_queue.broker.contract import Broker, MoveOutcome
from morag_queue.broker.recovery import RequeueRequest, ResendRequest
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.balancing.capacity import unsafe
from morag_queue.core.model import ContentType, QueuePriority, QueueType, Requires, TaskQueueEntry
from morag_queue.core.plan import Applied, MoveLane, MoveTask, Plan, Rejected, Resend, TakeBack


def apply(broker: Broker, plan: Plan, *, term: str = "") -> Applied:
    """`term` is that of the caller's lease, if it leads: a leader that was superseded changes nothing."""
    moved = already = taken_back = resent = quarantined = foreign = 0
    rejected: list[Rejected] = []
    with broker.translated():
        for _, run in groupby(plan.steps, key=type):
            steps: list[Any] = list(run)
            match steps[0]:
                case MoveLane():
                    for step in steps:
                        done = broker.moves.lane(
                            step.source, step.target, step.level, step.count, term=term, keeps_gpu=step.keeps_gpu
                        )
                        moved += done.moved
                        foreign += done.left
                        rejected += need_a_gpu(step, done.need_gpu)
                case MoveTask():
                    chosen, there, refused = move_tasks(broker, steps, term)
                    moved, already, rejected = moved + chosen, already + there, rejected + refused
                case TakeBack():
                    back, buried, refused = take_back(_recovering(broker), steps, term)
                    taken_back, quarantined, rejected = taken_back + back, quarantined + buried, rejected + refused
                case Resend():
                    again, buried, refused = resend(_recovering(broker), steps, term)
                    resent, quarantined, rejected = resent + again, quarantined + buried, rejected + refused
                case unknown:
                    assert_never(unknown)
    return Applied(
        plan_id=plan.plan_id, moved=moved, already=already, taken_back=taken_back, resent=resent,
        quarantined=quarantined, foreign=foreign, rejected=tuple(rejected),
    )  # fmt: skip


def _recovering(broker: Broker) -> RedisBroker:
    """To take back and to send again is more than the port knows: owners, attempts, quarantine."""
    if not isinstance(broker, RedisBroker):
        raise TypeError(f"recovery needs the real broker, not {type(broker).__name__}")
    return broker


def move_tasks(broker: Broker, steps: Sequence[MoveTask], term: str) -> tuple[int, int, list[Rejected]]:
    """How many were moved, how many were there already, and who was refused. Raises LeaseLost on a stale term."""
    closed = unsafe(broker.observe()[0], broker.queues)
    outcomes = list(zip(steps, broker.moves.tasks(steps, closed, term=term), strict=True))
    there = _already(broker, [step for step, outcome in outcomes if outcome is MoveOutcome.GONE])
    refused = [
        Rejected(task_id=step.task_id, reason=_why(step, outcome))
        for step, outcome in outcomes
        if outcome is not MoveOutcome.MOVED and step.task_id not in there
    ]
    return sum(outcome is MoveOutcome.MOVED for _, outcome in outcomes), len(there), refused


def need_a_gpu(step: MoveLane, count: int) -> list[Rejected]:
    """What stayed of a whole lane, if anything did."""
    reason = f"{count} in {step.source} need a GPU, and workers without one read {step.target}: they stay"
    return [Rejected(task_id="", reason=reason)] if count else []


def _already(broker: Broker, gone: Sequence[MoveTask]) -> Collection[str]:
    """Those that the ledger has where they should go to: the plan was applied before, wholly or in part."""
    records = broker.records([step.task_id for step in gone]) if gone else {}
    wanted = {step.task_id: {"state": "queued", "lane": step.target, "level": step.to_level} for step in gone}
    return {task for task, record in records.items() if wanted[task].items() <= record.items()}


def _why(step: MoveTask, outcome: MoveOutcome) -> str:
    match outcome:
        case MoveOutcome.FOREIGN:
            return f"its message in {step.source} is not of the expected form: it stays there"
        case MoveOutcome.GPU:
            return f"it needs a GPU, and workers without one read {step.target}: it stays in {step.source}"
        case _:
            return f"it is no longer in {step.source} at level {step.level}: taken, ended or moved meanwhile"


_REFUSED = {
    "gone": "nobody has it in hand any more: it has ended, or someone else took it back",
    "early": "it was acknowledged before it ran, so its message is gone; the ledger calls it failed",
    "foreign": "its message is not of Celery's form: left in `unacked`",
    "changed": "it has ended meanwhile, or someone else sent it again",
}


def take_back(broker: RedisBroker, steps: Sequence[TakeBack], term: str) -> tuple[int, int, list[Rejected]]:
    """How many went back to a lane, how many were quarantined, and the rest."""
    outcomes = broker.requeues.apply(map(_return, steps), term=term)
    refused = [
        Rejected(task_id=step.task_id, reason=_REFUSED[outcome])
        for step, outcome in zip(steps, outcomes, strict=True)
        if outcome in _REFUSED
    ]
    return outcomes.count("moved"), outcomes.count("quarantined"), refused


def resend(broker: RedisBroker, steps: Sequence[Resend], term: str) -> tuple[int, int, list[Rejected]]:
    """How many were sent again, how many were quarantined, and the rest."""
    reasons = {step.task_id: step.reason for step in steps}
    outcomes: list[str] = []
    refused: list[Rejected] = []
    for again in _agains(broker, reasons):
        outcome = broker.lost.resend(again, broker.settings.policy.max_retries, term=term)
        outcomes.append(outcome)
        if outcome in _REFUSED:
            refused.append(Rejected(task_id=again.task_id, reason=_REFUSED[outcome]))
    return outcomes.count("resent"), outcomes.count("quarantined"), refused


def _return(step: TakeBack) -> RequeueRequest:
    return RequeueRequest(
        step.tag, step.incarnation, step.task_id, step.target, step.level, step.reason, step.max_deaths,
        step.untouched_since, step.eta,
    )  # fmt: skip


def _agains(broker: RedisBroker, reasons: dict[str, str]) -> Iterator[ResendRequest]:
    from morag_queue.broker.celery_message import MessageBuilder

    wire = MessageBuilder()
    for task_id, seen in broker.lost.records(list(reasons)).items():
        entry = _entry(task_id, json.loads(seen))
        text, record = wire.message(entry)
        yield ResendRequest(task_id, seen, record, text, entry.lane, entry.level, reasons[task_id])


def _entry(task_id: str, record: dict[str, Any]) -> TaskQueueEntry:
    """The entry as it was submitted; a lane of a worker gives way to the queue's, for that worker may be what died."""
    queue = QueueType(record["queue"])
    content_type = record.get("content_type")
    return TaskQueueEntry(
        task_id=task_id,
        task=record["task"],
        args=tuple(record["args"]),
        kwargs=record["kwargs"],
        source=record["source"],
        content_type=ContentType(content_type) if content_type else None,
        priority=QueuePriority[record["priority"]],
        requires=Requires(record["requires"]),
        queue=queue,
        lane=queue.value,
        level=record["level"],
        estimated_duration=record["estimated_minutes"],
        enqueued_at=record["enqueued_at"],
        worker=record.get("worker"),
    )
